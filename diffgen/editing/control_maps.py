"""Control maps, the input of ControlNets. They are made from the working image, so they are aligned with it.

Edges are computed here. Depth and segmentation come from an estimator, a transformers model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.dataset.geometry import Canvas, fit
from diffgen.dataset.images import Pixels, decode
from diffgen.errors import DiffgenError, OutOfMemory, TransientError, why
from diffgen.lru import LRUCache
from diffgen.models.load_network import load_network, load_processor
from diffgen.models.model import Model
from diffgen.models.networks import Network
from diffgen.types import ControlInput, Source

Plane = NDArray[np.uint8]  # (H, W): a level from 0 to 255, or a class of ADE20K
Estimate = Callable[[Pixels], Plane]

CANNY = (100, 200)  # hysteresis thresholds of the examples for the ControlNet paper
SCALES = (1.0, 2.0, 4.0)  # of soft edges: standard deviations in pixels of the working size
WHITE = 0.25  # the step, as a share of the range, that soft edges draw as white

# The colours of ADE20K's 150 classes as its authors published them (Zhou et al., Scene Parsing through ADE20K Dataset,
# 2017). ControlNets for segmentation are trained on them.
PALETTE = np.frombuffer(bytes.fromhex(
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
), dtype=np.uint8).reshape(150, 3)  # fmt: skip


def canny(image: Pixels) -> Plane:
    """(H, W, 3) RGB -> (H, W), 255 on edges: Canny, A Computational Approach to Edge Detection, 1986."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.Canny(grey, *CANNY), dtype=np.uint8)


def soft_edges(image: Pixels) -> Plane:
    """(H, W, 3) RGB -> (H, W): edge strength, 0 to 255, without thinning.

    The gradient of the smoothed picture times the scale (normalised derivatives: Lindeberg, Edge Detection and Ridge
    Detection with Automatic Scale Selection, 1998), of the strongest channel, averaged over three scales. It stands in for
    the HED network (Xie and Tu, 2015) that soft-edge ControlNets were trained on, which also knows which edges matter.
    """
    import cv2

    picture = np.ascontiguousarray(image).astype(np.float32) / 255
    total = np.zeros(image.shape[:2], dtype=np.float32)
    for scale in SCALES:
        smooth = cv2.GaussianBlur(picture, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
        across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8, borderType=cv2.BORDER_REFLECT)
        down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8, borderType=cv2.BORDER_REFLECT)
        total += scale * np.hypot(across, down).max(axis=2)
    full = WHITE / np.sqrt(2 * np.pi)  # the response to a step of that height, at every scale
    return np.asarray((total / len(SCALES) / full).clip(0, 1) * 255 + 0.5, dtype=np.uint8)


class Maps:
    """Makes the maps of working images. Caches recent ones, because the conditions of one source are edited in turn."""

    def __init__(self, estimators: Mapping[str, Estimate]) -> None:
        """`estimators` by identity. Not thread-safe: they run on the device."""
        self._estimators = estimators
        self._recent: LRUCache[tuple[bytes, tuple[int, ...], str, str | None], Plane] = LRUCache(64)

    def __call__(self, control: ControlInput, image: Pixels) -> Pixels:
        """The control's map of `image`, both (H, W, 3). Raises OutOfMemory."""
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        plane = self._recent.get_or(
            (digest, image.shape, control.kind, control.estimator), lambda _: self._make(control, np.asarray(image))
        )
        return PALETTE[plane] if control.kind == "segmentation" else np.repeat(plane[..., None], 3, axis=2)

    def _make(self, control: ControlInput, image: Pixels) -> Plane:
        if control.estimator is not None:
            return self._estimators[control.estimator](image)
        return canny(image) if control.kind == "canny" else soft_edges(image)


def load_maps(model: Model, device: str) -> Maps:
    """Load the estimators among the model's networks. Raises DiffgenError if one cannot be loaded."""
    return Maps({n.identity: load_estimator(n, device) for n in model.networks if n.role in ("depth", "segmentation")})


def kept_map(source: Source, control: ControlInput, canvas: Canvas) -> Pixels:
    """The user's map of the source in the control's folder, at the working size.

    Raises TransientError if it changed after planning, SourceError if it does not decode.
    """
    path, digest = next((path, digest) for folder, path, digest in source.maps if folder == control.folder)
    raw = Path(path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != digest:
        raise TransientError(f"the map {path} changed during the run")
    return own_map(raw, control, canvas)


def own_map(raw: bytes, control: ControlInput, canvas: Canvas) -> Pixels:
    """A user's map from the bytes of an image file, at the working size. Raises SourceError if it does not decode."""
    return fit(decode(raw), canvas, mix=control.kind != "segmentation")


# The first fusion layer of DPT and related models has nothing to fuse. These weights never run, and published files lack
# them.
_IDLE = r"fusion_stage\.layers\.0\.residual_layer1\."


def load_estimator(network: Network, device: str) -> Estimate:
    """The network's depth or segmentation model, in float32, as a function of a working image.

    Raises DiffgenError if the files are not such a model.
    """
    import transformers

    depth = network.role == "depth"
    cls = transformers.AutoModelForDepthEstimation if depth else transformers.AutoModelForSemanticSegmentation
    hint = f"use a {network.role} model that transformers knows, or copy or download it again"
    processor = load_processor(transformers.AutoImageProcessor, network, hint=hint)
    model = load_network(cls, network, device, hint=hint, idle=_IDLE)
    if depth:
        return lambda image: _depth(model, processor, image)
    if model.config.num_labels != len(PALETTE):
        raise DiffgenError(
            f"{network.full_name} has {model.config.num_labels} classes; ControlNets for segmentation expect ADE20K's "
            "150",
            "use a segmentation model trained on ADE20K, or `folder:` with maps in its colours",
        )
    return lambda image: _segments(model, processor, image)


def _depth(model: Any, processor: Any, image: Pixels) -> Plane:
    """(H, W): 255 for the nearest and 0 for the farthest point of the image, as in the training of depth ControlNets."""
    result = _estimated(model, processor, image, processor.post_process_depth_estimation)
    depth = result["predicted_depth"].float().cpu().numpy()
    # Relative models estimate closeness, metric ones distance.
    if _is_metric(model.config):
        depth = -depth
    low, high = float(depth.min()), float(depth.max())
    return np.asarray((depth - low) / ((high - low) or 1.0) * 255 + 0.5, dtype=np.uint8)


def _is_metric(config: Any) -> bool:
    metric = ("glpn", "zoedepth", "depth_pro", "prompt_depth_anything")
    return config.model_type in metric or getattr(config, "depth_estimation_type", "relative") == "metric"


def _segments(model: Any, processor: Any, image: Pixels) -> Plane:
    """(H, W): the class of each pixel."""
    classes = _estimated(model, processor, image, processor.post_process_semantic_segmentation)
    return np.asarray(classes.cpu().numpy(), dtype=np.uint8)


def _estimated(model: Any, processor: Any, image: Pixels, post_process: Callable[..., Any]) -> Any:
    """The model's output for one image, at the image's size. One image at a time, so that no result depends on a batch."""
    import torch

    try:
        with torch.inference_mode():
            inputs = processor(images=image.copy(), return_tensors="pt").to(model.device)
            return post_process(model(**inputs), [image.shape[:2]])[0]
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the estimator does not fit on the device: {why(error)}") from None
