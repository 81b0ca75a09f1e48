"""The table of pipeline classes agrees with diffusers, and the families keep their contract."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest

from diffgen.editing.editor import EditBatch, Family
from diffgen.editing.families import FAMILIES, check_class, family_of
from diffgen.errors import UsageError
from diffgen.models.aliases import aliases
from diffgen.models.pipelines import SPECS, PipelineSpec
from diffgen.types import ControlInput
from tests.editing.tiny_models import job, settings
from tests.fakes import model

pytestmark = pytest.mark.editors

CLASSES = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


@CLASSES
def test_diffusers_has_the_class_and_those_that_are_loaded_for_it(spec: PipelineSpec) -> None:
    named = {spec.name, *spec.loads.values()} | ({spec.union_controlnet} if spec.union_controlnet else set())
    assert all(issubclass(getattr(diffusers, name), diffusers.DiffusionPipeline) for name in named)
    assert set(spec.loads) <= set(FAMILIES)
    assert spec.family in spec.loads
    assert "controlnet" not in spec.loads or "img2img" in spec.loads  # a job without controls needs the plain pipeline


@CLASSES
def test_a_class_that_is_loaded_has_a_spec_with_the_same_traits(spec: PipelineSpec) -> None:
    """An editor reads the traits of the class that it loaded; that of ControlNets reads those of the plain pipeline."""
    for family, name in spec.loads.items():
        if family != "controlnet":
            for trait in ("reader", "second_pass", "flow", "codec", "patch", "optional_parts", "loader_options"):
                assert getattr(SPECS[name], trait) == getattr(spec, trait)


@CLASSES
def test_its_constructor_knows_the_options_and_the_optional_parts(spec: PipelineSpec) -> None:
    takes = inspect.signature(getattr(diffusers, spec.name)).parameters
    assert {*spec.loader_options, *spec.optional_parts} <= set(takes)
    assert spec.reader is None or set(spec.reader.tokenizers) & set(takes)


@CLASSES
def test_only_instruction_models_have_an_adapter(spec: PipelineSpec) -> None:
    assert (spec.adapter is not None) == ("instruct" in spec.loads)


def test_single_files_are_told_apart() -> None:
    known = [(f.channels, f.two_encoders) for spec in SPECS.values() if (f := spec.single_file) is not None]
    assert len(set(known)) == len(known) == 6


@pytest.mark.parametrize("name", [name for name, entry in aliases().items() if "hub" in entry])
def test_the_class_of_every_alias_has_a_spec(name: str) -> None:
    entry = aliases()[name]
    assert entry["editor"] in SPECS[entry["pipeline"]].loads


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_keeps_its_contract(name: str) -> None:
    family = family_of(name)
    assert isinstance(family, Family)
    assert family.name == name
    for strength in (0.0, 0.4, 1.0):
        assert 0 <= family.effective_strength(settings(name, strength=strength)) <= 1
    assert family.effective_object_strength(settings(name)) is None
    assert len(inspect.signature(family.load).parameters) == 3


def test_what_is_unknown_is_said() -> None:
    with pytest.raises(UsageError, match="editor 'oil' is not known") as caught:
        family_of("oil")
    assert "img2img, instruct, controlnet, inpaint, text2img" in str(caught.value.hint)
    for editor, words in (("img2img", "cannot use"), ("text2img", "cannot generate images from text alone")):
        with pytest.raises(UsageError, match=f"is a StableDiffusionUpscalePipeline.*{words}"):
            check_class(replace(model(), editor=editor, pipeline="StableDiffusionUpscalePipeline"))


IMAGE = np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [], "jobs": []}, "one job an image"),
        ({"masks": [np.zeros((48, 32), np.float32)]}, "a mask as large as its image"),
        ({"masks": [np.zeros((48, 64), np.float32)] * 2}, "a mask as large as its image"),
        ({"views": []}, "one view an image"),
        ({"controls": [(IMAGE,)]}, "expected 0 maps"),
        ({"jobs": [job(settings("img2img", controls=(ControlInput("canny", "x", 1.0),)))]}, "expected 1 maps"),
    ],
)
def test_a_batch_checks_itself(changes: dict[str, Any], words: str) -> None:
    fields = {"images": [IMAGE], "jobs": [job(settings("img2img"))], **changes}
    with pytest.raises(ValueError, match=words):
        EditBatch(**fields)
