"""The diffusers schedulers that suit editing, by class or short name. The tables need no import of diffusers."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from diffgen.editing.levels import levels
from diffgen.errors import UsageError, closest, why
from diffgen.models.load_network import quiet
from diffgen.models.pipelines import SPECS
from diffgen.types import Settings

logger = logging.getLogger(__name__)

# Only schedulers that keep changes to the latents between steps, and run as many steps as requested.
SCHEDULERS = {
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
# latents. PNDM repeats its second step to warm up, so it runs one step too many. DDIM works out by itself to which level a
# step leads, so it runs only over its own levels; Euler takes the same steps (Song, Meng and Ermon, Denoising Diffusion
# Implicit Models, 2021, 4.3) over any.
REPLACED = {
    "unipc": ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"),
    "sasolver": ("SASolverScheduler", "DPMSolverMultistepScheduler"),
    "pndm": ("PNDMScheduler", "EulerDiscreteScheduler"),
    "ddim": ("DDIMScheduler", "EulerDiscreteScheduler"),
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

TOKEN_PX = (
    16  # side of the patch that flow matching models read as one token: VAEs of 8 px a latent, two latents a patch
)

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
        """The settings' scheduler for edits from pure noise, by default the model's own. A replacement is logged once."""
        key = settings.scheduler, settings.scheduler_options
        if key not in self._cache:
            cls = self._class(settings)
            own = cls == type(self._own).__name__ and not settings.scheduler_options
            self._cache[key] = self._own if own else self._made(cls, settings)
        return self._cache[key]

    def at_levels(self, settings: Settings) -> Any:
        """The settings' scheduler over the settings' `levels` and no others, whatever steps a pipeline asks it for."""
        key = settings.scheduler, settings.scheduler_options, levels(settings), settings.native
        if key not in self._cache:
            scheduler = self._made(self._class(settings), settings)
            _fix_levels(scheduler, levels(settings), settings.native or settings.tile_side)
            self._cache[key] = scheduler
        return self._cache[key]

    def _class(self, settings: Settings) -> str:
        own, name = type(self._own).__name__, settings.scheduler
        requested = scheduler_class(name) if name else own
        cls = _REPLACEMENT.get(requested, requested)
        if self._own.config.get("prediction_type") == "sample" and requested == "DDIMScheduler":
            return requested  # such models start from pure noise, a level that other schedulers do not have
        if cls != requested:
            level = logging.WARNING if name else logging.INFO  # the user did not choose the model's own
            if ("told", requested) not in self._cache:
                logger.log(level, "scheduler %s does not suit editing: using %s", requested, cls)
            self._cache["told", requested] = True
        return cls

    def _made(self, cls: str, settings: Settings) -> Any:
        import diffusers

        own = type(self._own).__name__
        # Flow matching and EDM (CosXL) have noise schedules that the other schedulers do not support.
        kinds = {name.startswith(_APART) for name in (own, cls)}
        if cls != own and (self._own.config.get("prediction_type") == "sample" or True in kinds):
            raise UsageError(
                f"this model cannot use the scheduler {cls}", f"remove `scheduler:`; the model's own is {own}"
            )
        try:
            with quiet():
                return getattr(diffusers, cls).from_config(self._own.config, **dict(settings.scheduler_options or ()))
        except (
            ValueError,
            NotImplementedError,
            ImportError,
        ) as error:  # settings that exclude each other, or need scipy
            raise UsageError(f"scheduler {cls}: {why(error)}", "change its settings in `scheduler:`") from error


def _fix_levels(scheduler: Any, shares: Sequence[float], native: int) -> None:
    """Make `set_timesteps` of a scheduler give these levels and no others, as they are at the size `native` in pixels.

    The schedulers' own ways to take levels differ, some have none, and that of flow matching shifts them a second time.
    """
    import numpy as np
    import torch

    own, config, count = scheduler.set_timesteps, scheduler.config, len(shares)
    flow = type(scheduler).__name__.startswith("FlowMatch")
    convert = next((getattr(scheduler, f"_convert_to_{key.split('_')[1]}") for key in _SIGMAS if config.get(key)), None)

    def set_timesteps(
        num_inference_steps: Any = None, device: Any = None, timesteps: Any = None, sigmas: Any = None, mu: Any = None
    ) -> None:
        own(count, device=device, **({"mu": 1.0} if config.get("use_dynamic_shifting") else {}))  # resets its memory
        u = np.asarray(shares, dtype=np.float64)
        if flow:
            values = _shifted(scheduler, u, native)
            if convert is not None:
                values = convert(in_sigmas=values, num_inference_steps=count)
            times = values * config.num_train_timesteps
        else:
            alphas = scheduler.alphas_cumprod.double().cpu().numpy()
            table = np.sqrt((1 - alphas) / alphas)
            times = np.maximum((u * config.num_train_timesteps).round() - 1, 0)
            values = table[times.astype(np.int64)]
            if convert is not None:
                values = convert(in_sigmas=values, num_inference_steps=count)
                times = np.array([scheduler._sigma_to_t(value, np.log(table)) for value in values])
        like = scheduler.timesteps
        times = torch.from_numpy(np.ascontiguousarray(times))
        if scheduler.order == 2:  # Heun visits every level but the first twice
            times = torch.cat([times[:1], times[1:].repeat_interleave(2)])
        scheduler.timesteps = (times if like.is_floating_point() else times.round()).to(like.device, like.dtype)
        if hasattr(scheduler, "sigmas"):
            inner = torch.from_numpy(np.ascontiguousarray(values))
            if scheduler.order == 2:
                inner = torch.cat([inner[:1], inner[1:].repeat_interleave(2)])
            last = scheduler.sigmas[-1:]
            scheduler.sigmas = torch.cat([inner.to(last.device, last.dtype), last])

    scheduler.set_timesteps = set_timesteps


def _shifted(scheduler: Any, shares: Any, native: int) -> Any:
    """Flow matching: the noise shares (sigma, 0 to 1) at shares of the schedule, for pictures of native × native pixels."""
    config = scheduler.config
    if config.use_dynamic_shifting:
        tokens = (native / TOKEN_PX) ** 2
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        sigmas = scheduler.time_shift(config.base_shift + slope * (tokens - config.base_image_seq_len), 1.0, shares)
    else:
        sigmas = scheduler.shift * shares / (1 + (scheduler.shift - 1) * shares)
    return 1 - (1 - sigmas) * (1 - (config.shift_terminal or 0.0))
