"""Open-vocabulary detectors (OWLv2, Grounding DINO), whose classes are given in words.

Loading downloads nothing. Images run one at a time, so that a result does not depend on the rest of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffgen.checks.auto_labels import non_max_suppression
from diffgen.checks.detections import Detection
from diffgen.checks.detectors.names import listed_names, plain
from diffgen.dataset.images import Pixels
from diffgen.errors import OutOfMemory, UsageError
from diffgen.models.load_network import load_network, load_processor
from diffgen.models.networks import Network
from diffgen.recipe.sections import LEAST_CONFIDENCE

MAX_BOXES = 300  # per picture, before non-maximum suppression
OPEN = ("owlv2", "grounding-dino")  # model types of transformers


class OpenDetector:
    """Finds boxes of `names` in (H, W, 3) RGB pictures. Class ids are indices into `names`.

    OWLv2 (Minderer, Gritsenko and Houlsby, Scaling Open-Vocabulary Object Detection, 2023) compares each box with each
    name separately. Grounding DINO (Liu et al., 2023) reads all names as one text and scores each box against each word.
    """

    def __init__(self, model: Any, processor: Any, names: Sequence[str], device: str) -> None:
        self._model, self._processor, self._device = model, processor, device
        words = [plain(name) for name in names]
        if model.config.model_type == "owlv2":
            self._look, self._texts = self._compare, [f"a photo of a {name}" for name in words]
            limit = model.config.text_config.max_position_embeddings
        else:
            self._look, self._texts = self._read, [" ".join(f"{name}." for name in words)]
            limit = model.config.max_text_len
        if long := [text for text in self._texts if len(processor.tokenizer(text).input_ids) > limit]:
            raise UsageError(
                f"text2img.classes: '{long[0][:60]}' is longer than the {limit} tokens that the detector reads",
                "use shorter or fewer names",
            )
        if self._look == self._read and not all(self._spans(processor.tokenizer(self._texts[0]).input_ids)):
            raise UsageError(
                f"text2img.classes: the detector has no word for one of {listed_names(names)}",
                "use plain English words",
            )

    def __call__(self, images: Sequence[Pixels]) -> list[list[Detection]]:
        """The boxes of each picture with a score of at least LEAST_CONFIDENCE, highest first. Raises OutOfMemory."""
        import torch

        try:
            with torch.inference_mode():
                return [non_max_suppression(self._look(image)) for image in images]
        except torch.OutOfMemoryError as error:
            raise OutOfMemory("the detector does not fit on the device", "use a smaller detector") from error

    def _compare(self, image: Pixels) -> list[Detection]:
        inputs = self._processor(images=[image.copy()], text=[self._texts], return_tensors="pt").to(self._device)
        (result,) = self._processor.post_process_grounded_object_detection(
            self._model(**inputs), threshold=LEAST_CONFIDENCE, target_sizes=[image.shape[:2]]
        )
        height, width = image.shape[:2]
        corners = result["boxes"] / result["boxes"].new_tensor([width, height, width, height])
        return _boxes(result["labels"], result["scores"], corners, image)

    def _read(self, image: Pixels) -> list[Detection]:
        import torch

        inputs = self._processor(images=[image.copy()], text=self._texts, return_tensors="pt").to(self._device)
        outputs = self._model(**inputs)
        # transformers' own post-processing returns phrases, some merged ("car truck"), some partial ("traffic"). Here a
        # class's score for a box is that of its best word, and the box gets the best class.
        words = outputs.logits[0].sigmoid()
        spans = self._spans(inputs["input_ids"][0].tolist())
        scores, classes = torch.stack([words[:, span].amax(dim=1) for span in spans], dim=1).max(dim=1)
        kept = scores > LEAST_CONFIDENCE
        x, y, width, height = outputs.pred_boxes[0][kept].unbind(dim=1)  # fractions of the picture
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1)
        return _boxes(classes[kept], scores[kept], corners, image)

    def _spans(self, tokens: Sequence[int]) -> list[list[int]]:
        """The positions of each name's tokens in the text. A full stop ends each name."""
        tokenizer = self._processor.tokenizer
        stop, special = tokenizer.convert_tokens_to_ids("."), set(tokenizer.all_special_ids)
        spans: list[list[int]] = [[]]
        for position, token in enumerate(tokens):
            if token == stop:
                spans.append([])
            elif token not in special:
                spans[-1].append(position)
        return spans[:-1]


def _boxes(classes: Any, scores: Any, corners: Any, image: Pixels) -> list[Detection]:
    """Detections, highest score first, none thinner than a pixel. `corners` (N, 4) are fractions; they may leave 0 to 1."""
    height, width = image.shape[:2]
    rows = zip(classes.tolist(), scores.tolist(), corners.clamp(0, 1).tolist(), strict=True)
    boxes = [
        Detection(int(c), s, (x0, y0, x1, y1))
        for c, s, (x0, y0, x1, y1) in rows
        if min((x1 - x0) * width, (y1 - y0) * height) >= 1
    ]
    return sorted(boxes, key=lambda box: -box.score)[:MAX_BOXES]


def load_open_detector(network: Network, names: Sequence[str], device: str) -> OpenDetector:
    """The open-vocabulary detector in the network's folder, for the classes `names`.

    Raises DiffgenError if the folder holds another model, UsageError if the detector cannot read the names.
    """
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    if any("." in name for name in names):
        raise UsageError(
            "text2img.classes: a class name contains a full stop, which separates class names in the detector's prompt",
            "write the name without it",
        )
    hint = (
        "give Ultralytics weights (.pt), or a hub id or folder of an OWLv2 or Grounding DINO model with .safetensors "
        "weights, such as google/owlv2-base-patch16-ensemble"
    )
    model = load_network(AutoModelForZeroShotObjectDetection, network, device, hint=hint, types=OPEN)
    return OpenDetector(model, load_processor(AutoProcessor, network, hint=hint), names, device)
