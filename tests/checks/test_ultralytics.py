"""A real Ultralytics network with random weights, loaded as users' are. Nothing is downloaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffgen.checks.detectors.ultralytics import Detector, load_detector, process_state_restored
from diffgen.checks.second_look import load_second_look
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.networks import Network, Observers
from tests.fakes import photo

pytestmark = pytest.mark.editors

# A sure network would find nothing with random weights.
UNSURE = {"confidence": 1e-7, "size": 160}


@pytest.fixture(scope="module", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ultralytics writes a settings file when it is first imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights") / "tiny.pt", "yolo11n.yaml")


def saved(path: Path, config: str) -> Path:
    """A network from a config that Ultralytics ships, normalised to real statistics: else every picture looks alike."""
    with process_state_restored():
        from ultralytics import YOLO

        torch.manual_seed(3)
        yolo = YOLO(config)
        for module in yolo.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over all batches seen
                module.reset_running_stats()
        pictures = np.stack([photo(seed, (160, 160)) for seed in range(8)])
        with torch.no_grad():
            yolo.model.train()(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
        yolo.model.eval()
        yolo.save(path)
    return path


@pytest.fixture(scope="module")
def detector(weights: Path) -> Detector:
    return load_detector(weights, "cpu", **UNSURE)


def test_boxes_are_shares_of_the_picture_by_falling_score(detector: Detector) -> None:
    assert len(detector.names) == 80
    (found,) = detector([photo(1, (200, 120))])
    assert len(found) > 10
    assert [box.score for box in found] == sorted((box.score for box in found), reverse=True)
    for box in found:
        x0, y0, x1, y1 = box.box
        assert 0 <= x0 <= x1 <= 1
        assert 0 <= y0 <= y1 <= 1
        assert 0 <= box.score <= 1
        assert box.class_id in range(80)


def test_pictures_are_red_green_blue(detector: Detector, weights: Path) -> None:
    from PIL import Image
    from ultralytics import YOLO

    pixels = photo(1, (200, 120))
    (expected,) = YOLO(weights).predict(Image.fromarray(pixels), conf=1e-7, imgsz=160, device="cpu", verbose=False)
    (found,) = detector([pixels])
    assert [box.score for box in found] == pytest.approx(sorted(expected.boxes.conf.tolist(), reverse=True), rel=1e-5)
    assert found[0].box == pytest.approx(expected.boxes.xyxyn[expected.boxes.conf.argmax()].tolist(), abs=1e-6)
    (swapped,) = detector([pixels[..., ::-1]])
    assert swapped != found


def test_what_is_found_does_not_depend_on_the_others(detector: Detector) -> None:
    pictures = [
        photo(1, (200, 120)),
        photo(2, (120, 200)),
        photo(3, (200, 120)),
        photo(4, (64, 64)),
        np.zeros((1, 1, 3), np.uint8),
    ]
    alone = [detector([pixels])[0] for pixels in pictures]
    assert detector(pictures) == alone
    assert detector(pictures[::-1]) == alone[::-1]
    assert detector([]) == []


def test_a_batch_on_an_accelerator_finds_the_same(weights: Path) -> None:
    """The way several go through at once, on this processor; equal up to rounding."""
    pictures = [photo(seed, (200, 120)) for seed in range(3)]
    batched = load_detector(weights, "cpu", **UNSURE)
    one_by_one = batched(pictures)
    batched._batch = 2
    for many, one in zip(batched(pictures), one_by_one, strict=True):
        assert [box.score for box in many] == pytest.approx([box.score for box in one], rel=1e-3)


def test_confidence_is_a_floor(weights: Path, detector: Detector) -> None:
    pixels = photo(1, (200, 120))
    scores = [box.score for box in detector([pixels])[0]]
    floor = scores[len(scores) // 2]
    stricter = load_detector(weights, "cpu", confidence=floor, size=160)
    assert all(box.score >= floor for box in stricter([pixels])[0])
    assert 0 < len(stricter([pixels])[0]) < len(scores)


def test_it_sees_pictures_at_the_size_it_was_trained_at(weights: Path, detector: Detector, tmp_path: Path) -> None:
    pixels = photo(1, (200, 120))
    saved = torch.load(weights, weights_only=False)
    torch.save(
        {**saved, "train_args": {**(saved.get("train_args") or {}), "imgsz": UNSURE["size"]}}, tmp_path / "small.pt"
    )
    trained = load_detector(tmp_path / "small.pt", "cpu", confidence=UNSURE["confidence"])
    assert trained([pixels]) == detector([pixels])
    assert trained([pixels]) != load_detector(weights, "cpu", confidence=UNSURE["confidence"])([pixels])


@pytest.mark.parametrize("name", ["yolo11n.pt", "nothing/here.pt", "."])
def test_weights_must_be_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_detector(Path(name), "cpu")
    assert name in caught.value.message
    assert "not downloaded" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_the_file_means_nothing(weights: Path, tmp_path: Path) -> None:
    odd = tmp_path / "o'neil 雪" / "yolov5n"
    odd.parent.mkdir()
    shutil.copyfile(weights, odd)
    assert load_detector(odd, "cpu").names[:2] == ("0", "1")


def test_without_ultralytics_it_says_so(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(package: str) -> Any:
        raise PackageNotFoundError(package)

    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.setattr("importlib.metadata.distribution", not_there)
    observers = Observers(detector=Network(str(weights), "detector", str(weights), str(weights)))
    for load in (
        lambda: load_detector(weights, "cpu"),
        lambda: load_second_look(observers, ["car"], "cpu", labels=False),
    ):
        with pytest.raises(DiffgenError, match="Ultralytics cannot be imported"):
            load()


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("imported_before", [False, True])
def test_a_file_that_is_no_detector_is_one_clear_error(
    tmp_path: Path, imported_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks

    # As it is when somebody imported Ultralytics without asking it to unpickle known classes only.
    monkeypatch.setattr(tasks, "SAFE_LOAD", not imported_before)
    cases: dict[str, Any] = {
        "empty.pt": b"",
        "text.pt": b"hello",
        "yolo11n.yaml": b"nc: 3\n",
        "pickle.pt": pickle.dumps({}),
    }
    for name, raw in cases.items():
        (tmp_path / name).write_bytes(raw)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "tensors.pt")
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    for name in (*cases, "tensors.pt", "trap.pt"):
        with pytest.raises(DiffgenError) as caught:
            load_detector(tmp_path / name, "cpu")
        assert name in caught.value.message
        assert "\n" not in caught.value.message
    assert not (tmp_path / "sprung").exists()


def test_an_ultralytics_that_only_says_that_it_is_safe_is_found_out(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older ones have no such switch, and some degrade silently: with an old torch, for instance."""
    from ultralytics.nn import tasks

    assert load_detector(weights, "cpu")
    unsafe = lambda file, *_, **__: (torch.load(file, map_location="cpu", weights_only=False), file)  # noqa: E731
    monkeypatch.setattr(tasks, "torch_safe_load", unsafe)
    with pytest.raises(DiffgenError, match="would run code from a weights file") as caught:
        load_detector(weights, "cpu")
    assert "pip install -U ultralytics" in str(caught.value.hint)
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "false")
    assert load_detector(weights, "cpu")


def test_a_classifier_finds_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(DiffgenError, match="'classify', which finds no boxes"):
        load_detector(saved(tmp_path / "c.pt", "yolo11n-cls.yaml"), "cpu")


def test_turned_boxes_come_as_upright_ones(tmp_path: Path) -> None:
    (found,) = load_detector(saved(tmp_path / "o.pt", "yolo11n-obb.yaml"), "cpu", **UNSURE)([photo(1, (200, 120))])
    assert found
    assert all(0 <= side <= 1 for box in found for side in box.box)


def test_a_device_that_is_not_there(weights: Path) -> None:
    absent = f"cuda:{max(7, torch.cuda.device_count())}"
    with pytest.raises(DiffgenError, match=f"cannot run on {absent}"):
        load_detector(weights, absent)


SCRIPT = """
import json, os, socket, sys, warnings
import cv2, numpy as np, PIL.Image, torch
from pathlib import Path
from diffgen.checks.detectors.ultralytics import load_detector

def no_network(*args, **kwargs):
    raise AssertionError("asked the network")

socket.getaddrinfo = socket.socket.connect = no_network
torch.set_num_threads(3)
cv2.setNumThreads(2)

def state():
    return {
        "functions": [PIL.Image.open, torch.save, torch.load, cv2.imread, cv2.imwrite, cv2.imshow],
        "threads": [torch.get_num_threads(), cv2.getNumThreads()],
        "printing": [np.get_printoptions(), torch._tensor_str.get_printoptions()],
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "rest": [PIL.Image.MAX_IMAGE_PIXELS, torch.is_grad_enabled(), torch.get_rng_state().tolist(), sys.excepthook],
    }

before = state()
detector = load_detector(Path(sys.argv[1]), "cpu")
detector([np.zeros((40, 60, 3), np.uint8)])
after = state()
added = {k: v for k, v in after.pop("environment").items() if before["environment"].get(k) != v}
before.pop("environment")
print(json.dumps([added, [name for name in before if before[name] != after[name]]]))
"""


def test_nothing_else_in_the_process_changes(weights: Path, tmp_path: Path) -> None:
    """In a process that never saw Ultralytics, with the network cut; nothing is printed and no file left."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("YOLO_AUTO", "YOLO_OFF", "OMP_", "ULTRALYTICS"))
    }
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "YOLO_CONFIG_DIR": str(weights.parent)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(weights)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    added, changed = json.loads(done.stdout)
    assert added == {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "ULTRALYTICS_SAFE_LOAD": "true"}
    assert changed == []
    assert list(tmp_path.iterdir()) == []
