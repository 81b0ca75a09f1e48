"""Prompt embeddings, each distinct text encoded once for as long as it is in use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from diffgen.editors.recent import Recent

logger = logging.getLogger(__name__)

# Per text about a third of a megabyte for SDXL.
_REMEMBERED = 256


class Prompts:
    """The text encoders of one pipeline. One call of them a distinct text, alone: then an embedding does not depend on what
    other texts a batch holds."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._xl = hasattr(pipe, "text_encoder_2")
        self._recent: Recent[str, tuple[Any, Any]] = Recent(_REMEMBERED)

    def embeds(self, prompts: Sequence[str], negatives: Sequence[str | None] | None) -> dict[str, Any]:
        """The pipeline's embedding arguments, rows in order; `negatives` is None when guidance is off."""
        found = self._stack("", [self._encode(text) for text in prompts])
        if negatives is not None:
            found |= self._stack("negative_", [self._negative(text) for text in negatives])
        return found

    def _stack(self, prefix: str, rows: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
        import torch

        found = {f"{prefix}prompt_embeds": torch.cat([row[0] for row in rows])}
        if self._xl:
            found[f"{prefix}pooled_prompt_embeds"] = torch.cat([row[1] for row in rows])
        return found

    def _negative(self, text: str | None) -> tuple[Any, Any]:
        hidden, pooled = self._encode(text or "")
        if text is None and self._xl and self._pipe.config.get("force_zeros_for_empty_prompt"):
            return hidden.new_zeros(hidden.shape), pooled.new_zeros(pooled.shape)
        return hidden, pooled

    def _encode(self, text: str) -> tuple[Any, Any]:
        """(1, tokens, width) and, for SDXL, the pooled (1, width)."""
        return self._recent.get_or(text, self._encode_now)

    def _encode_now(self, text: str) -> tuple[Any, Any]:
        from diffgen.editors.loading import quiet

        pipe = self._pipe
        device = pipe._execution_device
        with quiet():
            self._warn_if_long(text)
            if self._xl:
                hidden, _, pooled, _ = pipe.encode_prompt(text, device=device, do_classifier_free_guidance=False)
                return hidden, pooled
            if hasattr(pipe, "encode_prompt"):
                return pipe.encode_prompt(text, device, 1, False)[0], None
            # StableDiffusionInstructPix2PixPipeline has the private name only.
            return pipe._encode_prompt(text, device, 1, False), None

    def _warn_if_long(self, text: str) -> None:
        tokenizer = self._pipe.tokenizer or self._pipe.tokenizer_2
        count, limit = len(tokenizer(text).input_ids), tokenizer.model_max_length
        if count > limit:
            logger.warning("prompt cut to the model's %d tokens (it has %d): %s", limit, count, text)
