"""Prompt embeddings, each distinct text encoded once for as long as it is in use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diffgen.editing.pipelines.recent import LRUCache

logger = logging.getLogger(__name__)

# Per text about a third of a megabyte for SDXL, four for models that read with T5.
_REMEMBERED = 256

# The pipeline's embedding arguments for one text: tensors (1, …), or lists of one tensor where the class takes lists.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind of pipeline reads: the call, the tokenizer whose limit counts, and the most tokens asked for."""

    encode: Callable[[Any, str, int], Row]
    tokenizers: tuple[str, ...]  # the first that the pipeline has
    most: int = 512

    def tokenizer(self, pipe: Any) -> Any:
        return next(found for name in self.tokenizers if (found := getattr(pipe, name, None)) is not None)

    def limit(self, pipe: Any) -> int:
        """The tokens it reads of a text at most; the rest is cut."""
        return min(self.most, int(self.tokenizer(pipe).model_max_length))


def _sd(pipe: Any, text: str, _: int) -> Row:
    device = pipe._execution_device
    if hasattr(pipe, "encode_prompt"):
        return {"prompt_embeds": pipe.encode_prompt(text, device, 1, False)[0]}
    # StableDiffusionInstructPix2PixPipeline has the private name only.
    return {"prompt_embeds": pipe._encode_prompt(text, device, 1, False)}


def _sdxl(pipe: Any, text: str, _: int) -> Row:
    device = pipe._execution_device
    hidden, _, pooled, _ = pipe.encode_prompt(text, device=device, do_classifier_free_guidance=False)
    return {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}


def _sd3(pipe: Any, text: str, limit: int) -> Row:
    hidden, _, pooled, _ = pipe.encode_prompt(
        text, None, None, do_classifier_free_guidance=False, max_sequence_length=limit
    )
    return {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}


def _flux(pipe: Any, text: str, limit: int) -> Row:
    if not pipe.transformer.config.guidance_embeds:
        limit = min(limit, 256)  # what the models without guidance (schnell) were trained with
    hidden, pooled, _ = pipe.encode_prompt(text, max_sequence_length=limit)
    return {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}


def _flux2(pipe: Any, text: str, limit: int) -> Row:
    return {"prompt_embeds": pipe.encode_prompt(text, max_sequence_length=limit)[0]}


def _zimage(pipe: Any, text: str, limit: int) -> Row:
    return {
        "prompt_embeds": pipe.encode_prompt([text], do_classifier_free_guidance=False, max_sequence_length=limit)[0]
    }


# By the beginning of the class's name, the longest first.
_READERS = {
    "StableDiffusionXL": Reader(_sdxl, ("tokenizer", "tokenizer_2")),
    "StableDiffusion3": Reader(_sd3, ("tokenizer_3", "tokenizer"), 256),
    "StableDiffusion": Reader(_sd, ("tokenizer",)),
    "LatentConsistencyModel": Reader(_sd, ("tokenizer",)),
    "Flux2": Reader(_flux2, ("tokenizer",)),
    "Flux": Reader(_flux, ("tokenizer_2",)),
    "ZImage": Reader(_zimage, ("tokenizer",)),
}


class Prompts:
    """The text encoders of one pipeline. One call of them a distinct text, alone: then an embedding does not depend on what
    other texts a batch holds."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        name = type(pipe).__name__
        self._reader = next(reader for start, reader in _READERS.items() if name.startswith(start))
        self._recent: LRUCache[str, Row] = LRUCache(_REMEMBERED)

    def embeds(self, prompts: Sequence[str], negatives: Sequence[str | None] | None) -> dict[str, Any]:
        """The pipeline's embedding arguments, rows in order; `negatives` is None when guidance is off."""
        found = _stack("", [self._encode(text) for text in prompts])
        if negatives is not None:
            found |= _stack("negative_", [self._negative(text) for text in negatives])
        return found

    def _negative(self, text: str | None) -> Row:
        row = self._encode(text or "")
        if text is None and self._pipe.config.get("force_zeros_for_empty_prompt"):
            return {key: value.new_zeros(value.shape) for key, value in row.items()}
        return row

    def _encode(self, text: str) -> Row:
        return self._recent.get_or(text, self._encode_now)

    def _encode_now(self, text: str) -> Row:
        from diffgen.models.load_network import quiet

        with quiet():
            self._warn_if_long(text)
            return self._reader.encode(self._pipe, text, self._reader.limit(self._pipe))

    def _warn_if_long(self, text: str) -> None:
        limit = self._reader.limit(self._pipe)
        count = len(self._reader.tokenizer(self._pipe)(text).input_ids)
        if count > limit:
            logger.warning("prompt cut to the model's %d tokens (it has %d): %s", limit, count, text)


def _stack(prefix: str, rows: Sequence[Row]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        found[prefix + key] = [value[0] for value in values] if isinstance(values[0], list) else torch.cat(values)
    return found
