"""The diffusers schedulers that suit editing, by class or short name. The tables need no import of diffusers."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from diffgen.errors import UsageError, closest, why
from diffgen.models.load_network import quiet
from diffgen.models.pipelines import SPECS
from diffgen.types import Settings

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


# The settings of each that a recipe can set: all but the betas that the model was trained with, and those that draw noise or
# clip what the model predicts.
_SPACING = ("timestep_spacing", "steps_offset", "prediction_type")
_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_SOLVER = (*_SPACING, *_SIGMAS, "solver_order", "lower_order_final")
_SHIFT = (
    "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "shift_terminal",
    "time_shift_type",
)  # fmt: skip
OPTIONS = {
    "DDIMScheduler": (*_SPACING, "set_alpha_to_one", "rescale_betas_zero_snr"),
    "EulerDiscreteScheduler": (*_SPACING, *_SIGMAS, "final_sigmas_type", "rescale_betas_zero_snr"),
    "EulerAncestralDiscreteScheduler": (*_SPACING, "rescale_betas_zero_snr"),
    "DPMSolverMultistepScheduler": (*_SOLVER, "euler_at_final", "final_sigmas_type", "rescale_betas_zero_snr"),
    "DEISMultistepScheduler": _SOLVER,
    "HeunDiscreteScheduler": (*_SPACING, *_SIGMAS),
    "LCMScheduler": (*_SPACING, "timestep_scaling", "rescale_betas_zero_snr"),
    "FlowMatchEulerDiscreteScheduler": (*_SHIFT, *_SIGMAS),
}
# What each may be: one of these words, or a number of this type from the first to the second; else true or false.
_VALUES: dict[str, tuple[Any, ...]] = {
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "time_shift_type": ("exponential", "linear"),
    "steps_offset": (int, 0, 1),
    "solver_order": (int, 1, 3),
    **dict.fromkeys(("base_image_seq_len", "max_image_seq_len"), (int, 1, 10**6)),
    **dict.fromkeys(("shift", "base_shift", "max_shift", "timestep_scaling"), (float, 0.01, 100.0)),
    "shift_terminal": (float, 0.001, 0.999),
}

Options = tuple[tuple[str, Any], ...]


def chosen_scheduler(value: str | Mapping[str, Any], pipeline: str | None) -> tuple[str, Options | None]:
    """(name, settings) of a recipe's `scheduler:`, a name or a mapping with one. Settings are sorted by their keys.

    Raises UsageError for an unknown scheduler or setting, or one that a model of the class `pipeline` cannot use. Where that
    is None, the class is not known yet, and only names are checked.
    """
    flow = pipeline in SPECS and SPECS[pipeline].flow
    given = {"name": value} if isinstance(value, str) else dict(value)
    name = given.pop("name", "flow_euler" if flow else None)
    if not isinstance(name, str):
        raise UsageError("scheduler: its settings need a `name`", f"one of: {', '.join(SCHEDULERS)}")
    cls = scheduler_class(name)
    if pipeline is not None and flow != (cls in FLOW_SCHEDULERS.values()):
        suit = FLOW_SCHEDULERS if flow else SCHEDULERS
        raise UsageError(
            f"scheduler '{name}' does not suit a {pipeline}", f"remove `scheduler:`, or use {' or '.join(suit)}"
        )
    known = OPTIONS.get(_REPLACEMENT.get(cls, cls), ())
    for key in given:
        if key not in known:
            near = closest(key, known)
            raise UsageError(
                f"scheduler '{name}' has no setting '{key}'",
                f"did you mean '{near}'?" if near else f"its settings: {', '.join(known)}",
            )
    options = tuple((key, _checked(name, key, given[key])) for key in sorted(given))
    _check_together(name, given)
    return name, options or None


def _checked(name: str, key: str, value: Any) -> Any:
    """A setting's value; whole numbers as fractions where those are meant, because both must give the same job ids."""
    wanted = _VALUES.get(key, (bool,))
    if key == "shift_terminal" and value is None:
        return None
    if wanted[0] is float and type(value) is int:
        value = float(value)
    if isinstance(wanted[0], str):
        fits, words = value in wanted, " or ".join(wanted)
    elif wanted[0] is bool:
        fits, words = type(value) is bool, "true or false"
    else:
        kind, low, high = wanted
        fits = type(value) is kind and low <= value <= high
        words = f"a {'whole ' if kind is int else ''}number from {low:g} to {high:g}"
    if not fits:
        raise UsageError(f"scheduler '{name}': {key} must be {words}, got {value!r}", "correct or remove it")
    return value


def _check_together(name: str, given: Mapping[str, Any]) -> None:
    """Raises UsageError for settings that exclude each other, or that need a package that is missing."""
    sigmas = [key for key in _SIGMAS if given.get(key)]
    if len(sigmas) > 1:
        raise UsageError(f"scheduler '{name}': {' and '.join(sigmas)} exclude each other", "set one of them")
    if given.get("use_beta_sigmas") and find_spec("scipy") is None:
        raise UsageError(f"scheduler '{name}': use_beta_sigmas needs the package scipy", "pip install scipy")
    if given.get("base_image_seq_len", 0) >= given.get("max_image_seq_len", 10**9):
        raise UsageError(f"scheduler '{name}': base_image_seq_len must be below max_image_seq_len", "correct them")


def noised(scheduler: Any, source: Any, noise: Any, levels: Any) -> Any:
    """`source` (B, …) with `noise` of that shape added, at the timesteps `levels` (B,)."""
    if hasattr(scheduler, "scale_noise"):  # flow matching
        return scheduler.scale_noise(source, levels, noise)
    return scheduler.add_noise(source, noise, levels)


class Schedulers:
    """One pipeline's schedulers by name, all with the noise schedule of the model's own scheduler."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self._cache: dict[Any, Any] = {}

    def get(self, settings: Settings) -> Any:
        """The settings' scheduler, by default the model's own. A replacement is logged once."""
        name, options = settings.scheduler, settings.scheduler_options
        if (name, options) not in self._cache:
            self._cache[name, options] = self._make(name, dict(options or ()))
        return self._cache[name, options]

    def _make(self, name: str | None, options: dict[str, Any]) -> Any:
        import diffusers

        own = type(self._own).__name__
        requested = scheduler_class(name) if name else own
        cls = _REPLACEMENT.get(requested, requested)
        if cls != requested:
            level = logging.WARNING if name else logging.INFO  # the user did not choose the model's own
            logger.log(level, "scheduler %s does not suit editing: using %s", requested, cls)
        if cls == own and not options:
            return self._own
        # Models that predict the sample start from pure noise in one step, a level that other schedulers do not have.
        # Flow matching and EDM (CosXL) have noise schedules that the other schedulers do not support.
        kinds = {name.startswith(_APART) for name in (own, cls)}
        if self._own.config.get("prediction_type") == "sample" or (cls != own and True in kinds):
            raise UsageError(f"this model cannot use the scheduler {cls}", f"remove `scheduler:`; its own is {own}")
        try:
            with quiet():
                return getattr(diffusers, cls).from_config(self._own.config, **options)
        except (
            ValueError,
            NotImplementedError,
            ImportError,
        ) as error:  # settings that exclude each other, or need scipy
            raise UsageError(f"scheduler {cls}: {why(error)}", "change its settings in `scheduler:`") from error
