"""Promises over all sizes, orders and thresholds."""

from __future__ import annotations

import random
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffgen.checks.verdict import judge
from diffgen.dataset.dataset import Dataset
from diffgen.dataset.geometry import canvas_of, fit, unfit
from diffgen.dataset.labels import parse_labels
from diffgen.plan.batches import cut_batches
from diffgen.plan.plan import plan_jobs
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Checks
from diffgen.run.store.records import read_log
from diffgen.run.store.store import RunStore
from diffgen.types import ControlInput, Record, Result, Settings
from tests.fakes import job, model, source
from tests.fakes import settings as some_settings

SIDES = st.integers(1, 3000)
MULTIPLES = st.sampled_from([1, 8, 16, 32, 64])


@given(SIDES, SIDES, st.integers(64, 2048), MULTIPLES, st.none() | st.integers(16, 512))
def test_a_plan_fits_any_size_and_keeps_the_aspect(
    width: int, height: int, long_side: int, multiple: int, smallest: int | None
) -> None:
    plan = canvas_of(width, height, long_side, multiple, smallest)
    assert plan.size[0] % multiple == plan.size[1] % multiple == 0
    assert plan.source == (width, height)
    for side, inner, before in zip(plan.size, plan.inner, (plan.left, plan.top), strict=True):
        assert before >= 0
        assert before + inner <= side < inner + multiple
    scale = max(plan.inner) / max(width, height)
    assert max(plan.inner) <= max(long_side, 1)
    assert all(
        abs(inner - scale * own) <= 0.51 or inner == 1 for inner, own in zip(plan.inner, plan.source, strict=True)
    )


@given(st.integers(1, 700), st.integers(1, 700), st.integers(64, 512), MULTIPLES)
def test_there_and_back_gives_the_size_again(width: int, height: int, long_side: int, multiple: int) -> None:
    pixels = np.random.default_rng(width * height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    plan = canvas_of(width, height, long_side, multiple)
    working = fit(pixels, plan)
    assert working.shape == (plan.size[1], plan.size[0], 3)
    back = unfit(working, plan)
    assert back.shape == pixels.shape
    if plan.inner == plan.source:
        assert np.array_equal(back, pixels)


@given(
    st.integers(200, 900),
    st.integers(200, 900),
    st.integers(256, 700),
    MULTIPLES,
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
)
def test_nothing_moves(width: int, height: int, long_side: int, multiple: int, x: float, y: float) -> None:
    """A bright blob at (x, y) stays there: in the working image by the plan's numbers, and on the way back."""
    rows, columns = np.mgrid[:height, :width]
    radius = 0.04 * min(width, height)
    blob = np.exp(-((columns + 0.5 - x * width) ** 2 + (rows + 0.5 - y * height) ** 2) / (2 * radius**2))
    pixels = np.repeat((blob * 255).astype(np.uint8)[..., None], 3, axis=-1)
    plan = canvas_of(width, height, long_side, multiple)
    there = centre(fit(pixels, plan)[plan.top : plan.top + plan.inner[1], plan.left : plan.left + plan.inner[0]])
    scale = plan.inner[0] / width
    assert abs(there[0] - x * plan.inner[0]) < 0.5 * max(1, scale)
    assert abs(there[1] - y * plan.inner[1]) < 0.5 * max(1, scale)
    back = centre(unfit(fit(pixels, plan), plan))
    assert np.hypot(back[0] - x * width, back[1] - y * height) < 0.5


def centre(pixels: np.ndarray) -> tuple[float, float]:
    weight = pixels[..., 0].astype(float)
    weight[weight < 30] = 0
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return float(((columns + 0.5) * weight).sum() / weight.sum()), float(((rows + 0.5) * weight).sum() / weight.sum())


BOXES = st.tuples(
    st.integers(0, 2), *[st.floats(0.01, 0.99) for _ in range(2)], *[st.floats(0.001, 0.3) for _ in range(2)]
)


@given(st.lists(BOXES, max_size=8))
def test_label_text_of_boxes_is_those_boxes(boxes: list[tuple[int, float, float, float, float]]) -> None:
    text = "".join(f"{i} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for i, x, y, w, h in boxes)
    shapes = parse_labels(text.encode(), 3)
    assert len(shapes) == len(boxes)
    for shape, (i, x, y, w, h) in zip(shapes, boxes, strict=True):
        assert shape.class_id == i
        assert np.allclose(shape.box, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), atol=2e-6)


def plan_of(sources: list[Any], **recipe: Any) -> list[Any]:
    given = {"dataset": "d", "output": "o", "conditions": ["night", "fog"], **recipe}
    dataset = Dataset(Path("d.yaml"), ("car", "person"), {}, tuple(sources))
    return list(plan_jobs(Recipe.model_validate(given), dataset, model()).items)


@given(st.integers(1, 30), st.integers(0, 99), st.integers(1, 7))
def test_ids_are_unique_and_do_not_depend_on_order_number_or_batch_size(count: int, shuffle: int, size: int) -> None:
    sources = [source(i) for i in range(count)]
    val = [source(900, split="val")]
    items = plan_of(sources + val)
    ids = [item.job.id for item in items]
    assert len(set(ids)) == len(ids) == 2 * count
    mixed = sources[:]
    random.Random(shuffle).shuffle(mixed)
    assert {item.job.id for item in plan_of(mixed + val)} == set(ids)
    fewer = {item.job.id for item in plan_of(mixed[: 1 + count // 2] + val, batch_size=size, device="cpu")}
    assert fewer <= set(ids)
    batched = [item.job.id for batch in cut_batches(items, size) for item in batch.items]
    assert sorted(batched) == sorted(ids)


@given(st.floats(0.05, 0.95), st.integers(2, 40))
def test_a_val_source_never_yields_a_train_image(share: float, count: int) -> None:
    items = plan_of([source(i) for i in range(count)], val_from_train=share)
    for item in items:
        assert item.source.split == "train"
    assert (
        0 < len({item.source.digest for item in items}) < count
    )  # something to train on, and something to validate on


def test_every_field_that_reaches_the_pipeline_changes_the_id() -> None:
    base = some_settings()
    other = {
        "editor": "img2img",
        "model": "x@y",
        "scheduler": "ddim",
        "severity": "{prompt}",
        "mode": "tile",
        "image_format": "png",
        "loras": (("ab" * 32, 0.5),),
        "controls": (ControlInput("canny", "x@y", 1.0, None, None),),
        "task": "remove",
        "classes": (1,),
    }
    for field in fields(Settings):
        if field.name == "condition":  # a name for people
            assert job(settings=replace(base, condition="dusk")).id == job().id
            continue
        value = getattr(base, field.name)
        changed = other.get(field.name, (value or 0) + 1 if not isinstance(value, str) else None)
        assert job(settings=replace(base, **{field.name: changed})).id != job().id, field.name
    for name, value in {"source": "cd" * 32, "prompt": "x", "negative_prompt": None, "seed": 8}.items():
        assert job(**{name: value}).id != job().id
    assert job(attempt=1, variant=1).id == job().id  # both are in the seed and the strength, not in the id themselves


FACTS = st.fixed_dictionaries(
    {
        "contrast": st.floats(0, 0.5),
        "shift_px": st.floats(0, 9),
        "shift_peak": st.floats(0, 1),
        "structure": st.lists(st.none() | st.floats(-1, 1), min_size=3, max_size=3),
        "sides_px": st.lists(st.floats(0, 99), min_size=3, max_size=3),
        "structure_image": st.none() | st.floats(-1, 1),
        "found": st.lists(st.booleans(), min_size=4, max_size=4),
        "found_matched": st.lists(st.booleans(), min_size=4, max_size=4),
        "found_px": st.just([9.0, 40.0, 120.0, 300.0]),
        "new_objects": st.integers(0, 5),
        "clip": st.lists(st.floats(-1, 1), min_size=2, max_size=2),
        "before": st.just([0.5, 0.25, 0.3, 0.3, 0.05, 0.1, 0.7, 0.0]),
        "after": st.lists(st.floats(0, 1), min_size=8, max_size=8),
    }
)
# Of each check its strictest and its most lenient value; True: a larger one is stricter.
RANGES = {
    "structure": (-1.0, 1.0, True),
    "registration": (0.0, 9.0, False),
    "contrast": (0.0, 0.5, True),
    "change": (0.0, 9.0, True),
    "effect": (0.0, 2.0, True),
    "recall": (0.0, 1.0, True),
    "new_objects": (0, 5, False),
    "clip": (-1.0, 1.0, True),
}
LEVELS = st.fixed_dictionaries(
    {
        name: st.none() | (st.integers(least, most) if isinstance(least, int) else st.floats(least, most))
        for name, (least, most, _) in RANGES.items()
    }
)


def strictest(name: str, one: float | None, two: float | None) -> float | None:
    """None turns a check off: everything is stricter."""
    known = [value for value in (one, two) if value is not None]
    return (max if RANGES[name][2] else min)(known) if known else None


@given(FACTS, LEVELS, LEVELS)
def test_a_looser_threshold_never_rejects_what_was_accepted(facts: dict[str, Any], one: Any, two: Any) -> None:
    record = Record("a", "made", facts)
    strict = Checks(**{name: strictest(name, one[name], two[name]) for name in RANGES})
    if judge(record, strict, "night").accepted:
        assert judge(record, Checks(**one), "night").accepted
        assert judge(record, Checks(**two), "night").accepted
    assert judge(record, Checks(**dict.fromkeys(RANGES)), "night").accepted


def test_any_prefix_of_the_records_is_a_prefix_of_the_batches() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "out")
        batches = [[Record(f"{b}{i}" * 8, "failed", kind="source", error="é") for i in range(3)] for b in range(4)]
        with RunStore(folder, "jpg") as store:
            for batch in batches:
                store.commit([Result(record) for record in batch])
        path = folder / "records-0.jsonl"
        whole = path.read_bytes()
        prefixes = [[record.id for batch in batches[:n] for record in batch] for n in range(5)]
        for end in range(len(whole) + 1):
            path.write_bytes(whole[:end])
            log = read_log(path)
            assert list(log.records) in prefixes
            assert log.end <= end
