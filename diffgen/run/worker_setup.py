"""Loads a worker's editor and observers, and describes the environment that may change the last bits of an image."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from diffgen.checks.second_look import load_second_look
from diffgen.dataset.dataset import Dataset
from diffgen.editing.control_maps import load_maps
from diffgen.editing.families import load_editor
from diffgen.models.memory import RESIDENT
from diffgen.models.model import Model
from diffgen.run.worker import BatchWorker, Worker
from diffgen.version import __version__, installed_version

MakeWorker = Callable[[], BatchWorker]


@dataclass(frozen=True, slots=True)
class Device:
    """Where a worker computes. `name` is "cpu", "cuda", "cuda:1" or "mps"; `dtype` "float32", "float16" or "bfloat16";
    `threads` are CPU threads; `reason` says in words why it was chosen."""

    name: str
    dtype: str
    threads: int
    reason: str = ""


def load_worker(model: Model, device: Device, dataset: Dataset, inserted: Collection[int] = ()) -> Worker:
    """Load the model and its observers (imports torch) and return the worker.

    `inserted` are ids of classes that tasks insert, which the detector must know. Raises DiffgenError when something
    cannot be loaded, UsageError when the detector lacks a class.
    """
    import torch

    torch.set_num_threads(device.threads)
    editor = load_editor(model, device.name, device.dtype)
    labels = model.editor == "text2img"
    second_look = load_second_look(model.observers, dataset.names, device.name, labels=labels, inserted=inserted)
    environment = describe_environment(model, device) | second_look.environment
    maps = load_maps(model, device.name)
    return Worker(editor, dataset.schema, environment, second_look, maps, dataset.shapes, dataset.target_paths)


def describe_environment(model: Model, device: Device) -> dict[str, Any]:
    """Everything that may change the last bits of an image: device, dtype, threads, memory layout and versions."""
    import torch

    cuda = device.name.startswith("cuda")
    packages = ("torch", "diffusers", "transformers", "numpy", "pillow")
    environment: dict[str, Any] = {
        "device": device.name,
        "device_name": torch.cuda.get_device_name(device.name) if cuda else platform.processor() or platform.machine(),
        "dtype": device.dtype,
        "threads": device.threads,
        "python": platform.python_version(),
        "diffgen": __version__,
        **{package: installed_version(package) for package in packages},
    }
    if model.layout != RESIDENT:
        environment["memory"] = str(model.layout)
    if model.layout.quantised:
        environment["bitsandbytes"] = installed_version("bitsandbytes")
    if any(network.role == "controlnet" for network in model.networks):
        import cv2

        environment["opencv"] = cv2.__version__
    return environment
