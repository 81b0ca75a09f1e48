"""Open-vocabulary detectors of transformers, built tiny: what they find is what the stock calls find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from diffgen.checks.detections import overlap
from diffgen.checks.detectors import load_labeller
from diffgen.checks.detectors.open_vocabulary import OpenDetector
from diffgen.dataset.images import Pixels
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.networks import Network
from diffgen.recipe.load import load_recipe
from diffgen.recipe.sections import LEAST_CONFIDENCE
from diffgen.run.loop import run
from tests.editing.tiny_models import picture
from tests.editing.tiny_nets import write_open_detector
from tests.fakes import put

pytestmark = pytest.mark.editors

NAMES = ("car", "traffic_light")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_open_detector(tmp_path_factory.mktemp(kind) / kind, kind) for kind in ("owlv2", "dino")}


@pytest.fixture(params=["owlv2", "dino"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def weights(folder: Path) -> Network:
    return Network("tiny", "detector", "tiny", str(folder))


def load(folder: Path, names: tuple[str, ...] = NAMES) -> Any:
    return load_labeller(weights(folder), names, "cpu")[0]


def stock(detector: OpenDetector, image: Pixels) -> list[tuple[np.ndarray, float]]:
    """(box in shares, score) of everything found, by the processor's own post-processing."""
    texts = detector._texts if detector._model.config.model_type == "grounding-dino" else [detector._texts]
    inputs = detector._processor(images=[image], text=texts, return_tensors="pt")
    with torch.inference_mode():
        outputs = detector._model(**inputs)
    (found,) = detector._processor.post_process_grounded_object_detection(
        outputs, threshold=LEAST_CONFIDENCE, target_sizes=[image.shape[:2]]
    )
    size = np.array([image.shape[1], image.shape[0]] * 2)
    corners = (found["boxes"].numpy() / size).clip(0, 1)
    return [(box, float(score)) for box, score in zip(corners, found["scores"], strict=True)]


def test_boxes_and_scores_are_those_of_the_stock_call(folders: dict[str, Path], kind: str) -> None:
    detector, image = load(folders[kind]), picture(0)
    (found,) = detector([image])
    assert found
    known = stock(detector, image)
    for box in found:
        score = max(score for corners, score in known if np.abs(corners - box.box).max() < 1e-4)
        # Of DINO the stock score is the best of all tokens, also of those between the names.
        assert box.score <= score + 1e-5
        assert kind == "dino" or box.score == pytest.approx(score, abs=1e-5)
    assert {box.class_id for box in found} <= {0, 1}
    assert [box.score for box in found] == sorted((box.score for box in found), reverse=True)


def test_no_object_is_found_twice(folders: dict[str, Path], kind: str) -> None:
    (found,) = load(folders[kind])([picture(1)])
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i] if a.class_id == b.class_id]
    assert all(overlap(a.box, b.box)[0] < 0.5 for a, b in pairs)


def test_what_is_found_does_not_depend_on_the_others(folders: dict[str, Path], kind: str) -> None:
    detector, images = load(folders[kind]), [picture(0), picture(1, 64, 64), picture(2)]
    assert detector(images) == [detector([image])[0] for image in images]


def test_each_class_of_grounding_dino_goes_by_its_own_words(folders: dict[str, Path]) -> None:
    detector = load(folders["dino"])
    tokens = detector._processor.tokenizer(detector._texts[0]).input_ids
    spans = detector._spans(tokens)
    read = [detector._processor.tokenizer.decode([tokens[i] for i in span]) for span in spans]
    assert [text.replace(" ", "") for text in read] == ["car", "trafficlight"]


def test_the_surest_word_gives_the_class(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    detector, image = load(folders["dino"]), picture(0)
    spans = detector._spans(detector._processor.tokenizer(detector._texts[0]).input_ids)
    forward = detector._model.forward

    def told(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        outputs.logits[:] = -9.0
        outputs.logits[0, 0, spans[1][-1]] = 2.0
        outputs.logits[0, 1, spans[0][0]] = 1.0
        outputs.pred_boxes[0, 0] = torch.tensor([0.25, 0.5, 0.3, 0.4])
        outputs.pred_boxes[0, 1] = torch.tensor([0.75, 0.5, 0.5, 1.2])
        return outputs

    monkeypatch.setattr(detector._model, "forward", told)
    (found,) = detector([image])
    assert [box.class_id for box in found] == [1, 0]
    assert [box.score for box in found] == pytest.approx([0.8808, 0.7311], abs=1e-4)
    assert found[0].box == pytest.approx((0.1, 0.3, 0.4, 0.7))
    assert found[1].box == pytest.approx((0.5, 0.0, 1.0, 1.0))  # what leaves the picture is cut


def test_texts_that_are_too_long_are_one_error(folders: dict[str, Path], kind: str) -> None:
    with pytest.raises(UsageError, match=r"longer than the \d+ tokens"):
        load(folders[kind], ("car", "a very long name of a thing " * 3))


def test_a_name_that_the_detector_cannot_read_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="no word for one of car, 車"):
        load(folders["dino"], ("car", "車"))


def test_a_full_stop_in_a_name_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="full stop"):
        load(folders["dino"], ("no. 7",))


def test_what_is_no_such_detector_is_one_clear_error(tmp_path: Path, folders: dict[str, Path]) -> None:
    other = tmp_path / "other"
    put(other / "config.json", json.dumps({"model_type": "detr"}))
    with pytest.raises(DiffgenError, match=r"detector 'tiny' cannot be loaded: its model_type is detr"):
        load(other)
    broken = tmp_path / "broken"
    shutil.copytree(folders["owlv2"], broken)
    put(broken / "model.safetensors", "no tensors")
    with pytest.raises(DiffgenError, match="cannot be loaded"):
        load(broken)


def test_files_that_lack_weights_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "less"
    shutil.copytree(folders["owlv2"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["class_head.dense0.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DiffgenError, match=r"its files do not contain class_head\.dense0\.weight"):
        load(folder)


def test_a_run_is_labelled_by_it(tmp_path: Path, kind: str, folders: dict[str, Path], sd: Path) -> None:
    given = {
        "text2img": {"classes": ["car"], "images": 2, "width": 64, "height": 64},
        "output": str(tmp_path / "out"),
        "model": {"folder": str(sd), "steps": 2},
        "detector": str(folders[kind]),
        "conditions": ["night"],
        "checks": {"contrast": None, "confidence": 0.05},
        "device": "cpu",
    }
    summary = run(load_recipe(put(tmp_path / "recipe.yaml", yaml.safe_dump(given))))
    assert summary.accepted == 2
    rows = [json.loads(line) for line in (tmp_path / "out/dataset/manifest.jsonl").read_text().splitlines()[1:]]
    for row in rows:
        label = (tmp_path / "out/dataset/labels/train" / Path(row["image"]).name).with_suffix(".txt").read_text()
        assert len(label.splitlines()) == len(row["confidences"]) > 0
        assert row["label_detector"].startswith(f"{folders[kind].name}@sha256:")
