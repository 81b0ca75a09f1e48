"""Recipes without a dataset: what is refused, and what is kept in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests import fakes
from tests.fakes_text2img import make, write


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dataset": "data.yaml"}, "give dataset or text2img, not both"),
        ({"detector": None}, "the images need labels"),
        ({"detector": "other.pt"}, "there is no file .*other.pt"),
        ({"detector": "nowhere/"}, "detector 'nowhere/'.* does not exist"),
        ({"editor": "img2img"}, "editor 'img2img' edits images"),
        ({"select": {"max": 3}}, "select: does nothing with text2img"),
        ({"clip": "openai/clip"}, "clip: does nothing with text2img"),
        ({"conditions": [{"night": {"objects": {"strength": 0.1}}}]}, "conditions: 'night': objects: does nothing"),
        ({"conditions": [{"night": {"task": "background"}}]}, "conditions: 'night': task: does nothing"),
        ({"text2img": {"templates": ["a car at night"]}}, r"has no \{class\}"),
        ({"text2img": {"templates": ["a photo of {class}"]}}, r"has no \{condition\}"),
        ({"text2img": {"classes": ["car", "car"]}}, "'car' is listed twice"),
        ({"text2img": {"classes": []}}, "must have 1 or more entries"),
        ({"text2img": {"images": 0}}, "must be 1 or more"),
        ({"text2img": {"width": 20}}, "must be 64 or more"),
        ({"text2img": {"pictures": 3}}, "text2img.pictures: unknown key"),
        ({"model": "pocket"}, "model 'pocket' is a .*InstructPix2Pix.*, which cannot generate images from text alone"),
        ({"model": "flux2-klein"}, "cannot generate images from text alone"),
    ],
)
def test_what_cannot_be_is_one_clear_error_before_any_work(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Session.open(load_recipe(write(tmp_path, **fields)))
    assert not (tmp_path / "out").exists()


def test_the_editor_alone_makes_no_dataset(tmp_path: Path) -> None:
    data = fakes.make_dataset(tmp_path / "data")
    with pytest.raises(UsageError, match=r"'text2img' .* cannot edit a dataset"):
        Session.open(load_recipe(fakes.write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", editor="text2img")))


def test_the_kept_recipe_is_the_recipe(tmp_path: Path) -> None:
    make(write(tmp_path, detector="detector.pt"))
    kept = load_recipe(tmp_path / "out")
    assert kept.recipe.dataset is None
    assert kept.recipe.text2img is not None
    assert (kept.base / str(kept.recipe.detector)).is_file()


def test_a_hub_detector_stays_a_hub_id_and_is_pinned(tmp_path: Path) -> None:
    commit = "1" * 40
    path = write(tmp_path, detector=f"google/owlv2@{commit}")
    loaded = load_recipe(path)
    assert f"detector: google/owlv2@{commit}" in loaded.to_yaml(tmp_path / "out")
    network = Session.open(loaded).model.observers.detector
    assert network is not None
    assert (network.role, network.identity, network.folder) == ("detector", f"google/owlv2@{commit}", None)
