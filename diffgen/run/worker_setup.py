"""Loading everything a worker needs, and describing what may change the last bits of an image."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffgen import __version__
from diffgen.checks.clip import load_clip
from diffgen.checks.detections import AGAIN
from diffgen.checks.detectors import load_labeller
from diffgen.checks.detectors.names import same_names
from diffgen.checks.detectors.ultralytics import load_detector
from diffgen.editing.control_maps import load_maps
from diffgen.editing.families import load_editor
from diffgen.errors import UsageError
from diffgen.models.memory import RESIDENT
from diffgen.models.model import Model
from diffgen.run.worker import Detect, Work, Worker

MakeWorker = Callable[[], Work]


@dataclass(frozen=True, slots=True)
class Detectors:
    """What looks at what was made: a detector by its weights, and the model's own CLIP, where it has one.

    `names` are the dataset's classes by id, by which the detector's are known; `inserted` those that it must have.
    """

    detector: Path | None = None
    names: tuple[str, ...] = ()
    inserted: frozenset[int] = frozenset()


def load_worker(
    model: Model,
    device: str,
    dtype: str,
    threads: int,
    classes: int,
    keypoints: tuple[int, int] | None,
    judges: Detectors | None = None,
) -> Worker:
    """Load the model (this imports torch) and make the worker for it. Raises DiffgenError when it cannot be loaded."""
    import torch

    torch.set_num_threads(threads)
    editor = load_editor(model, device, dtype)
    environment = describe_environment(device, dtype, threads)
    if model.layout != RESIDENT:
        environment |= {"memory": str(model.layout)}
    if model.layout.quantised:
        environment |= {"bitsandbytes": _version("bitsandbytes")}
    detector: Detect | None = None
    clip = None
    known: dict[int, int] = {}
    if judges is not None and judges.detector is not None:
        environment |= {
            "detector": hashlib.sha256(judges.detector.read_bytes()).hexdigest()[:16],
            "ultralytics": _version("ultralytics"),
        }
        detector = load_detector(judges.detector, device, confidence=AGAIN)
        known = same_names(judges.names, detector.names)
        if unknown := [judges.names[i] for i in sorted(judges.inserted) if i not in known]:
            raise UsageError(
                f"detector: {judges.detector} knows no class '{unknown[0]}', so it could not confirm what is inserted",
                f"use a detector of that class; this one knows: {', '.join(detector.names[:20])}",
            )
    networks = {role: [n for n in model.networks if n.role == role] for role in ("controlnet", "clip", "detector")}
    if judges is not None and networks["detector"]:
        (weights,) = networks["detector"]
        environment |= {"detector": weights.identity}
        detector, known = load_labeller(weights, judges.names, device)
    if judges is not None and networks["clip"]:
        (weights,) = networks["clip"]
        environment |= {"clip": weights.identity}
        clip = load_clip(weights, device)
    if networks["controlnet"]:
        import cv2

        environment |= {"opencv": cv2.__version__}
    maps = load_maps(model, device)
    return Worker(editor, classes, keypoints, environment, detector, clip, maps, known)


def describe_environment(device: str, dtype: str, threads: int) -> dict[str, Any]:
    """What may change the last bits of an image: device, number type, threads and versions."""
    import torch

    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    packages = ("torch", "diffusers", "transformers", "numpy", "pillow")
    return {
        "device": device,
        "device_name": name,
        "dtype": dtype,
        "threads": threads,
        "python": platform.python_version(),
        "diffgen": __version__,
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
