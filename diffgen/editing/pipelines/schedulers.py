"""The diffusers schedulers that suit editing, by class or short name. The tables need no import of diffusers."""

from __future__ import annotations

import difflib
import logging
from typing import Any

from diffgen.errors import UsageError
from diffgen.models.load_network import quiet
from diffgen.models.pipelines import SPECS

logger = logging.getLogger(__name__)

# Only schedulers that keep changes to the latents between steps, and run as many steps as requested.
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
}

# Models trained by flow matching have another kind of noise schedule. One of its schedulers suits editing.
FLOW_SCHEDULERS = {"flow_euler": "FlowMatchEulerDiscreteScheduler"}

# Schedulers that are replaced. UniPC and SASolver recompute each sample from their history, which undoes changes to the
# latents. PNDM repeats its second step to warm up, so it runs one step too many; if it starts within the schedule, it
# repeats another step and from then on takes each sample for one of the next level.
REPLACED = {
    "unipc": ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"),
    "sasolver": ("SASolverScheduler", "DPMSolverMultistepScheduler"),
    "pndm": ("PNDMScheduler", "DDIMScheduler"),
}
_KNOWN = {**SCHEDULERS, **FLOW_SCHEDULERS, **{short: cls for short, (cls, _) in REPLACED.items()}}
_REPLACEMENT = dict(REPLACED.values())
_APART = ("FlowMatch", "EDM")


def scheduler_class(name: str) -> str:
    """The diffusers class of a short name or class name. Raises UsageError for any other."""
    cls = _KNOWN.get(name.lower(), name)
    if cls not in _KNOWN.values():
        close = difflib.get_close_matches(name, [*_KNOWN, *_KNOWN.values()], n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(SCHEDULERS)}"
        raise UsageError(f"scheduler '{name}' is not known", hint)
    return cls


def check_scheduler(name: str, pipeline: str | None) -> None:
    """Raises UsageError for an unknown scheduler, or one that a model of the class `pipeline` cannot use.

    `pipeline` is None where the class is not known yet; then only the name is checked.
    """
    cls = scheduler_class(name)
    if pipeline is None:
        return
    flow = pipeline in SPECS and SPECS[pipeline].flow
    if flow != (cls in FLOW_SCHEDULERS.values()):
        suit = FLOW_SCHEDULERS if flow else SCHEDULERS
        raise UsageError(
            f"scheduler '{name}' does not suit a {pipeline}", f"remove `scheduler:`, or use {' or '.join(suit)}"
        )


def noised(scheduler: Any, source: Any, noise: Any, levels: Any) -> Any:
    """`source` (B, …) with `noise` of that shape added, at the timesteps `levels` (B,)."""
    if hasattr(scheduler, "scale_noise"):  # flow matching
        return scheduler.scale_noise(source, levels, noise)
    return scheduler.add_noise(source, noise, levels)


class Schedulers:
    """One pipeline's schedulers by name, all with the noise schedule of the model's own scheduler."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self._cache: dict[str | None, Any] = {}

    def get(self, name: str | None) -> Any:
        """The scheduler `name`; None is the model's own. A replacement is logged once."""
        if name not in self._cache:
            self._cache[name] = self._make(name)
        return self._cache[name]

    def _make(self, name: str | None) -> Any:
        import diffusers

        own = type(self._own).__name__
        requested = scheduler_class(name) if name else own
        cls = _REPLACEMENT.get(requested, requested)
        if cls != requested:
            level = logging.WARNING if name else logging.INFO  # the user did not choose the model's own
            logger.log(level, "scheduler %s does not suit editing: using %s", requested, cls)
        if cls == own:
            return self._own
        # Models that predict the sample start from pure noise in one step, a level that other schedulers do not have.
        # Flow matching and EDM (CosXL) have noise schedules that the other schedulers do not support.
        kinds = {name.startswith(_APART) for name in (own, cls)}
        if self._own.config.get("prediction_type") == "sample" or True in kinds:
            raise UsageError(f"this model cannot use the scheduler {cls}", f"remove `scheduler:`; its own is {own}")
        with quiet():
            return getattr(diffusers, cls).from_config(self._own.config)
