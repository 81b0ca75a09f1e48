"""Prompt embeddings. Each distinct text is encoded once and remembered while it is in use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from diffgen.lru import LRUCache
from diffgen.models.load_network import quiet
from diffgen.models.pipelines import ReaderName, SecondPass, spec_of

logger = logging.getLogger(__name__)

# Texts. One takes about a third of a megabyte with SDXL, four with models that use T5.
_REMEMBERED = 256

# The pipeline's embedding arguments for one text: tensors (1, …), or lists of one tensor where the class takes lists.
Row = dict[str, Any]


def _sd(pipe: Any, text: str, _: int) -> Row:
    device = pipe._execution_device
    if hasattr(pipe, "encode_prompt"):
        return {"prompt_embeds": pipe.encode_prompt(text, device, 1, False)[0]}
    # InstructPix2Pix on Stable Diffusion 1.x has the private name only.
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
        limit = min(limit, 256)  # as the models without guidance (schnell) were trained
    hidden, pooled, _ = pipe.encode_prompt(text, max_sequence_length=limit)
    return {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}


def _flux2(pipe: Any, text: str, limit: int) -> Row:
    return {"prompt_embeds": pipe.encode_prompt(text, max_sequence_length=limit)[0]}


def _zimage(pipe: Any, text: str, limit: int) -> Row:
    return {
        "prompt_embeds": pipe.encode_prompt([text], do_classifier_free_guidance=False, max_sequence_length=limit)[0]
    }


# Of a text and the most tokens that are read of it.
_READERS: dict[ReaderName, Callable[[Any, str, int], Row]] = {
    "sd": _sd,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "flux2": _flux2,
    "zimage": _zimage,
}


def has_second_pass(rule: SecondPass, pipe: Any, guidance: float) -> bool:
    """Whether the pipeline, at this guidance scale, runs the model a second time with the negative prompt."""
    if rule == "never":
        return False
    if rule == "above_1_unless_distilled" and _is_distilled(pipe):
        return False
    return guidance > (0 if rule == "above_0" else 1)


def _is_distilled(pipe: Any) -> bool:
    """Whether the model reads the guidance scale as a number (LCM), or ignores it (FLUX.2 klein)."""
    if hasattr(pipe, "unet"):
        return pipe.unet.config.time_cond_proj_dim is not None
    return bool(pipe.config.is_distilled)


class Prompts:
    """The text encoders of one pipeline. Each distinct text is encoded once, and alone: then its embedding does not depend
    on the other texts of a batch."""

    def __init__(self, pipe: Any) -> None:
        reader = spec_of(pipe).reader
        assert reader is not None
        self._pipe = pipe
        self._read, self._chat = _READERS[reader.name], reader.chat
        self._tokenizer = next(found for name in reader.tokenizers if (found := getattr(pipe, name, None)) is not None)
        self._limit = min(reader.most_tokens, int(self._tokenizer.model_max_length))  # what is beyond it is cut off
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

    def _as_read(self, text: str) -> str:
        """The text with what the pipeline puts around it."""
        if self._chat is None:
            return text
        said = [{"role": "user", "content": text}]
        options = {"tokenize": False, "add_generation_prompt": True, **self._chat}
        return str(self._tokenizer.apply_chat_template(said, **options))

    def _encode_now(self, text: str) -> Row:
        with quiet():
            count = len(self._tokenizer(self._as_read(text)).input_ids)
            if count > self._limit:
                logger.warning("prompt cut to the model's %d tokens (it has %d): %s", self._limit, count, text)
            return self._read(self._pipe, text, self._limit)


def _stack(prefix: str, rows: Sequence[Row]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        found[prefix + key] = [value[0] for value in values] if isinstance(values[0], list) else torch.cat(values)
    return found
