"""An Ultralytics detector as a plain function: pictures in, boxes out. The only place that imports Ultralytics.

Ultralytics downloads what it lacks, installs packages, and changes settings of other libraries for the whole process
(8.4: `PIL.Image.open`, `torch.save`, thread counts, how numbers print, environment variables). None of that here.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.checks.detections import SURE, Detection
from diffgen.dataset.images import Pixels
from diffgen.errors import DiffgenError, OutOfMemory, UsageError, why

LARGEST_BATCH = 16  # pictures in one call of the network on an accelerator

# Read by Ultralytics when it is imported. The last makes it unpickle known classes only: weights are a pickle, and any
# other class in it may run what it likes.
_ENVIRONMENT = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "ULTRALYTICS_SAFE_LOAD": "true"}


class Detector:
    """Finds boxes in (H, W, 3) RGB pictures. `names` are its classes by id; they need not be the dataset's.

    What it finds in a picture does not depend on the others of the call: pictures of one size go together, because a
    batch of mixed sizes is padded to a square; and on a processor, where a batch is no faster, one goes at a time.
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
        found: list[list[Detection]] = [[] for _ in images]
        for same in by_size.values():
            for start in range(0, len(same), self._batch):
                chosen = same[start : start + self._batch]
                for i, boxes in zip(chosen, self._predict([images[i] for i in chosen]), strict=True):
                    found[i] = boxes
        return found

    def _predict(self, images: list[Pixels]) -> list[list[Detection]]:
        import torch

        bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images]
        try:
            return [_boxes(result) for result in self._model.predict(bgr, **self._options)]
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                f"the device has no room for the detector: {why(error)}", "use a smaller detector, or another device"
            ) from None


def load_detector(weights: Path, device: str, *, confidence: float = SURE, size: int | None = None) -> Detector:
    """The detector in an Ultralytics weights file, ready to run; `size` is the long side in pixels that it sees, by default
    the one that it was trained at, which its file says.

    Raises UsageError when there is no such file, DiffgenError when it is no detector, or cannot run here.
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
            "pip install ultralytics; if a system library such as libGL is missing: apt-get install libgl1 libglib2.0-0",
        ) from None


def _load(weights: Path, device: str, confidence: float, size: int | None) -> Detector:
    with left_as_it_was(), tempfile.TemporaryDirectory() as folder:
        from ultralytics import YOLO
        from ultralytics.nn import tasks

        link = Path(folder, "detector.pt")  # Ultralytics reads meaning into names: yolov5n.pt, o'neil/, an URL
        link.symlink_to(weights.resolve())
        # Whoever imported it before us may have done so without the variable.
        tasks.SAFE_LOAD, own = os.environ["ULTRALYTICS_SAFE_LOAD"].lower() == "true", getattr(tasks, "SAFE_LOAD", False)
        try:
            model = YOLO(link)
        except Exception as error:  # whatever the file's bytes lead to  # noqa: BLE001
            reason = str(error).replace(str(link), str(weights)).strip().splitlines() or [type(error).__name__]
            raise DiffgenError(
                f"{weights} is not a detector that Ultralytics can load: {reason[0]}",
                "give the .pt file of a detection model; if you trust the file and it holds classes of its own, set "
                "ULTRALYTICS_SAFE_LOAD=false",
            ) from None
        finally:
            tasks.SAFE_LOAD = own
        if model.task not in ("detect", "segment", "pose", "obb"):
            raise DiffgenError(
                f"{weights} is a model for '{model.task}', which finds no boxes",
                "give the .pt file of a detection model",
            )
        detector = Detector(model, device, confidence, size)
        try:
            detector([np.zeros((32, 32, 3), np.uint8)])  # the first call sets up the device, and more of the process
        except (ValueError, RuntimeError, AssertionError) as error:
            raise DiffgenError(
                f"the detector cannot run on {device}: {why(error)}", "see 'diffgen doctor', or use another device"
            ) from None
    return detector


def _boxes(result: Any) -> list[Detection]:
    found = result.obb if result.boxes is None else result.boxes  # of a turned box its upright hull
    height, width = result.orig_shape
    corners = np.clip(found.xyxy.cpu().numpy().astype(float) / (width, height, width, height), 0, 1)
    rows = zip(found.cls.tolist(), found.conf.tolist(), corners.tolist(), strict=True)
    return sorted(
        (Detection(int(c), s, (x0, y0, x1, y1)) for c, s, (x0, y0, x1, y1) in rows), key=lambda box: -box.score
    )


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Undo what importing and starting Ultralytics changes for everybody. Our three variables stay, for its children."""
    import cv2
    import torch
    from PIL import Image

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    environment = dict(os.environ)
    patched = [(Image, "open"), (torch, "save"), *((cv2, name) for name in ("imread", "imwrite", "imshow"))]
    own = [(module, name, getattr(module, name)) for module, name in patched]
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    printing, torch_printing = np.get_printoptions(), torch._tensor_str.get_printoptions()
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # its logger keeps the stream of its first import
            yield
    finally:
        for module, name, function in own:
            setattr(module, name, function)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
        np.set_printoptions(**printing)
        torch.set_printoptions(**torch_printing)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
