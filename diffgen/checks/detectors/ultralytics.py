"""An Ultralytics detector as a plain function: pictures in, boxes out. The only place that imports Ultralytics.

By default, Ultralytics downloads missing files, installs packages, and changes other libraries for the whole process (8.4:
`PIL.Image.open`, `torch.save`, thread counts, number formats, environment variables). This module prevents all of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.checks.detections import CONFIDENT, Detection
from diffgen.dataset.images import Pixels
from diffgen.errors import DiffgenError, OutOfMemory, UsageError, why

Embeddings = NDArray[np.float32]
LARGEST_BATCH = 16  # pictures per call on an accelerator

# Ultralytics reads these when it is imported. The last makes it unpickle known classes only: weights are a pickle, and any
# other class in it can run arbitrary code.
_ENVIRONMENT = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "ULTRALYTICS_SAFE_LOAD": "true"}


class Detector:
    """Finds boxes in (H, W, 3) RGB pictures. `names` are its own classes by id, not the dataset's.

    A picture's boxes do not depend on the other pictures of the call. Only pictures of one size share a batch, because
    Ultralytics pads a batch of mixed sizes to a square. On a CPU, where a batch is no faster, they run one at a time.
    """

    def __init__(self, model: Any, device: str, confidence: float, size: int | None) -> None:
        self.names = tuple(str(model.names[i]) for i in sorted(model.names))
        self._model = model
        self._options = {"device": device, "conf": confidence, "verbose": False, "save": False}
        if size is not None:
            self._options["imgsz"] = size
        self._batch = 1 if device == "cpu" else LARGEST_BATCH

    def __call__(self, images: Sequence[Pixels]) -> list[list[Detection]]:
        """The boxes of each picture, highest score first. Raises OutOfMemory."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        boxes: dict[int, list[Detection]] = {}
        for indices in by_size.values():
            for start in range(0, len(indices), self._batch):
                batch = indices[start : start + self._batch]
                boxes |= zip(batch, self._predict([images[i] for i in batch]), strict=True)
        return [boxes[i] for i in range(len(images))]

    def embed(self, images: Sequence[Pixels]) -> Embeddings:
        """What its backbone makes of each picture, (N, D): the last layer's mean over the picture, as unit vectors."""
        last = len(self._model.model.yaml["backbone"]) - 1
        rows = [self._model.predict(_bgr(image), **self._options, embed=[last])[0] for image in images]
        self._model.predictor.args.embed = None  # it would stay
        found = np.stack([row.float().cpu().numpy().ravel() for row in rows])
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), np.float32)

    def _predict(self, images: list[Pixels]) -> list[list[Detection]]:
        import torch

        try:
            return [_boxes(result) for result in self._model.predict(list(map(_bgr, images)), **self._options)]
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                f"the detector does not fit on the device: {why(error)}", "use a smaller detector, or another device"
            ) from None


def load_detector(weights: Path, device: str, *, confidence: float = CONFIDENT, size: int | None = None) -> Detector:
    """The detector in an Ultralytics weights file, ready to run.

    `confidence` is the minimum score, 0 to 1. `size` is the long side in pixels at which it sees pictures; None: the one it
    was trained at. Raises UsageError if the file is missing, DiffgenError if it is no detector or cannot run here.
    """
    if not weights.is_file():
        raise UsageError(
            f"detector weights: there is no file {weights}",
            "give the path of an Ultralytics .pt file; a bare name is not downloaded",
        )
    try:
        return _load(weights, device, confidence, size)
    except ImportError as error:
        raise DiffgenError(
            f"Ultralytics cannot be imported: {why(error)}",
            "pip install ultralytics; if a system library such as libGL is missing: apt-get install libgl1 "
            "libglib2.0-0",
        ) from None


def _load(weights: Path, device: str, confidence: float, size: int | None) -> Detector:
    with process_state_restored(), tempfile.TemporaryDirectory() as folder:
        from ultralytics import YOLO
        from ultralytics.nn import tasks

        link = Path(folder, "detector.pt")  # Ultralytics interprets some names: yolov5n.pt, o'neil/, a URL
        link.symlink_to(weights.resolve())
        # Ultralytics may have been imported earlier, without the variable.
        tasks.SAFE_LOAD, before = (
            os.environ["ULTRALYTICS_SAFE_LOAD"].lower() == "true",
            getattr(tasks, "SAFE_LOAD", False),
        )
        try:
            if tasks.SAFE_LOAD:
                _require_safe_loading(tasks, Path(folder))
            model = YOLO(link)
        except DiffgenError:
            raise
        except Exception as error:  # a broken file can raise anything  # noqa: BLE001
            reason = str(error).replace(str(link), str(weights)).strip().splitlines() or [type(error).__name__]
            raise DiffgenError(
                f"{weights} is not a detector that Ultralytics can load: {reason[0]}",
                "give the .pt file of a detection model; if it contains custom classes and you trust it, set "
                "ULTRALYTICS_SAFE_LOAD=false",
            ) from None
        finally:
            tasks.SAFE_LOAD = before
        if model.task not in ("detect", "segment", "pose", "obb"):
            raise DiffgenError(
                f"{weights} is a model for '{model.task}', which finds no boxes",
                "give the .pt file of a detection model",
            )
        detector = Detector(model, device, confidence, size)
        try:
            detector(
                [np.zeros((32, 32, 3), np.uint8)]
            )  # the first call sets up the device and changes the process further
        except (ValueError, RuntimeError, AssertionError) as error:
            raise DiffgenError(
                f"the detector cannot run on {device}: {why(error)}", "see 'diffgen doctor', or use another device"
            ) from None
    return detector


_ran: list[bool] = []


def _mark() -> None:
    _ran.append(True)


class _Probe:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _mark, ()


def _require_safe_loading(tasks: Any, folder: Path) -> None:
    """Raises DiffgenError if this Ultralytics runs code that a file contains, whatever it has been told: tries it."""
    import torch

    _ran.clear()
    plain, probe = folder / "plain.pt", folder / "probe.pt"
    torch.save({"weight": torch.zeros(1)}, plain)
    torch.save({"model": _Probe()}, probe)
    tasks.torch_safe_load(str(plain))  # else what follows could fail for another reason than being refused
    with suppress(Exception):
        tasks.torch_safe_load(str(probe))
    if _ran:
        raise DiffgenError(
            "the installed Ultralytics would run code from a weights file",
            "pip install -U ultralytics torch; or, if you trust the file, set ULTRALYTICS_SAFE_LOAD=false",
        )


def _bgr(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[..., ::-1])


def _boxes(result: Any) -> list[Detection]:
    boxes = result.obb if result.boxes is None else result.boxes  # for a rotated box, its axis-aligned hull
    height, width = result.orig_shape
    corners = np.clip(boxes.xyxy.cpu().numpy().astype(float) / (width, height, width, height), 0, 1)
    rows = zip(boxes.cls.tolist(), boxes.conf.tolist(), corners.tolist(), strict=True)
    return sorted(
        (Detection(int(c), s, (x0, y0, x1, y1)) for c, s, (x0, y0, x1, y1) in rows), key=lambda box: -box.score
    )


@contextmanager
def process_state_restored() -> Iterator[None]:
    """Undo the process-wide changes of importing and starting Ultralytics. The variables of _ENVIRONMENT stay set, for its
    child processes."""
    import cv2
    import torch
    from PIL import Image

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    environment = dict(os.environ)
    patched = [(Image, "open"), (torch, "save"), *((cv2, name) for name in ("imread", "imwrite", "imshow"))]
    originals = [(module, name, getattr(module, name)) for module, name in patched]
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    printing, torch_printing = np.get_printoptions(), torch._tensor_str.get_printoptions()
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # its logger keeps the stream of its first import
            yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
        np.set_printoptions(**printing)
        torch.set_printoptions(**torch_printing)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
