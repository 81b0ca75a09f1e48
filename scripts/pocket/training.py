"""What both training loops share: checkpoints, the running mean of the weights, and time and steps counted over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

Say = Callable[[str], None]
LONGEST_STEP = 60.0  # seconds; a step that took longer was paused from outside, and the rest is not training time


class Mismatch(Exception):
    """Weights or a checkpoint that do not fit the network that is trained."""


@dataclass(frozen=True)
class Budget:
    """`minutes` of training in all, counted over restarts; seconds between checkpoints; "cpu" or "cuda"; the seed."""

    minutes: float
    checkpoint: float
    device: str
    seed: int


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """A checkpoint as Training.save writes it, on the CPU; None when there is none yet. Raises Mismatch for an older one."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu")
    if "model" not in state or "shadow_params" not in state["ema"]:
        raise Mismatch(
            f"{path} is of an older version: export it with that version, and --start from the export in another --work"
        )
    return state


def save(path: Path, state: dict[str, Any]) -> None:
    """Write the whole file or nothing, so that a kill in the middle does not cost the last checkpoint."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def first_checkpoint(model: nn.Module) -> dict[str, Any]:
    """The checkpoint of a model whose training has not begun."""
    mean = EMAModel(model.parameters()).state_dict()
    return {"model": model.state_dict(), "ema": mean, "optimizers": None, "seconds": 0.0, "step": 0}


def load_mean(model: nn.Module, state: dict[str, Any]) -> None:
    """Load a checkpoint's averaged weights into `model`."""
    model.load_state_dict(state["model"])
    mean = EMAModel(model.parameters())
    mean.load_state_dict(state["ema"])
    mean.copy_to(model.parameters())


@dataclass
class Training:
    """One training that may be killed at any time. `state`: the checkpoint to go on from, whose weights the model already
    has; `facts` are kept in each checkpoint beside the weights. `decay`: the most of the mean that a step keeps."""

    path: Path
    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    budget: Budget
    decay: float
    state: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    step: int = 0

    def __post_init__(self) -> None:
        self.mean = EMAModel(self.model.parameters(), decay=self.decay)
        if self.state:
            self.mean.load_state_dict({**self.state["ema"], "decay": self.decay})
            self.mean.to(self.budget.device)
            for optimizer, kept in zip(self.optimizers, self.state["optimizers"] or (), strict=False):
                optimizer.load_state_dict(kept)
            self.seconds, self.step = self.state["seconds"], self.state["step"]
            self.state = None  # not needed again, and as large as the model
        self.saved = time.monotonic()
        self.restart_clock()

    @property
    def progress(self) -> float:
        """Share of the time that is over; 1 or more: done."""
        return self.seconds / (self.budget.minutes * 60) if self.budget.minutes else 1.0

    @property
    def minutes_left(self) -> float:
        return self.budget.minutes - self.seconds / 60

    @property
    def due(self) -> bool:
        """Whether a checkpoint has to be written."""
        return time.monotonic() - self.saved > self.budget.checkpoint or self.progress >= 1

    def restart_clock(self) -> None:
        """What was done since the last update is no training time."""
        self.last = time.monotonic()

    def update(self, loss: torch.Tensor, rate: float) -> None:
        """One step of all optimizers at the learning rate `rate`."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.mean.step(self.model.parameters())
        self.step += 1
        now = time.monotonic()
        self.seconds += min(now - self.last, LONGEST_STEP)
        self.last = now

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "ema": self.mean.state_dict()}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        save(self.path, {**state, "seconds": self.seconds, "step": self.step, **self.facts})
        self.saved = time.monotonic()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the running mean of its weights."""
        self.mean.store(self.model.parameters())
        self.mean.copy_to(self.model.parameters())
        try:
            yield
        finally:
            self.mean.restore(self.model.parameters())
