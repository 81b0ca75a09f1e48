"""Whatever a file holds: one clear error or a result, never a traceback, never over ten seconds, and nothing written outside
the run folder."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from diffgen.cli import main
from diffgen.dataset.labels import LabelError, parse_labels
from diffgen.errors import DiffgenError
from diffgen.run.store.records import read_log
from diffgen.types import Record
from tests.fakes import make, make_dataset, put, recipe_fields, tree, write_recipe

# Pieces that a damaged or hostile file is likely to be made of, between arbitrary text.
NUMBERS = st.sampled_from(["0", "1", "-1", "0.5", "1.01", "nan", "inf", "1e999", "0x1", "1_0", "٣", "3.", "+", ""])
SCALARS = st.one_of(st.text(max_size=20), NUMBERS, st.integers(), st.floats(), st.booleans(), st.none())
KEYS = st.sampled_from(
    ["dataset", "output", "model", "conditions", "select", "checks", "seed", "path", "train", "val", "names", "nc",
     "kpt_shape", "channels", "download", "strength", "name", "prompt", "share", "format", "<<"]
)  # fmt: skip
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=5), max_leaves=20
)  # fmt: skip


HALVES = st.text(
    st.sampled_from(["\ud800", "\udcff", "\0", "a", "/", "."]), max_size=4
)  # as escapes in YAML and JSON leave
ODD = st.one_of(SCALARS, HALVES, st.sampled_from([10**400, 7, "7", 7.0, [], {}]))
COCO_ROWS = {
    "images": st.fixed_dictionaries({"id": ODD, "file_name": HALVES | st.just("00.jpg"), "width": ODD | st.just(64), "height": ODD | st.just(48)}),
    "annotations": st.fixed_dictionaries(
        {"id": ODD, "image_id": ODD, "category_id": ODD | st.just(1), "bbox": st.lists(ODD, min_size=4, max_size=4)},
        optional={"segmentation": st.lists(st.lists(ODD | st.floats(0, 64), min_size=6, max_size=6), max_size=2) | ODD, "iscrowd": ODD},
    ),
    "categories": st.fixed_dictionaries({"id": ODD, "name": ODD}),
}  # fmt: skip
VOC_PIECES = st.lists(
    st.one_of(
        NUMBERS, st.just("9" * 400), st.text(max_size=5),
        st.sampled_from(["object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax", "size", "width", "height"]).flatmap(
            lambda tag: st.sampled_from([f"<{tag}>", f"</{tag}>"])
        ),
    ), max_size=30,
).map("".join)  # fmt: skip


@contextmanager
def ten_seconds() -> Iterator[None]:
    """The longest that any file may take: of the processor, because other work must not fail the test."""
    started = time.process_time()
    try:
        yield
    finally:
        assert time.process_time() - started < 10


def quiet_main(*argv: str) -> int:
    with ten_seconds():
        return main(list(argv))


@given(st.one_of(st.binary(max_size=200), st.lists(st.lists(NUMBERS, max_size=9), max_size=5)), st.integers(0, 3))
def test_label_bytes_are_shapes_or_a_reason(raw: bytes | list[list[str]], classes: int) -> None:
    text = raw if isinstance(raw, bytes) else "\n".join(" ".join(row) for row in raw).encode()
    for keypoints in (None, (2, 3)):
        try:
            with ten_seconds():
                shapes = parse_labels(text, classes, keypoints)
            assert all(0 <= shape.class_id < classes for shape in shapes)
        except LabelError as error:
            assert error.reason.replace("-", "").isalpha()


@given(TREES)
def test_any_recipe_is_an_error_or_plans(capfd: object, fields: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        put(root / "recipe.yaml", yaml.safe_dump(fields, allow_unicode=True))
        assert quiet_main("plan", str(root / "recipe.yaml")) in (0, 1, 2)
        assert set(tree(root)) == {"recipe.yaml"}


@given(st.binary(max_size=300))
def test_any_bytes_as_a_recipe(capfd: object, raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "recipe.yaml")
        path.write_bytes(raw)
        assert quiet_main("plan", str(path)) == 2


@given(st.one_of(TREES, st.dictionaries(st.sampled_from(["train", "val", "names", "path", "nc", "kpt_shape"]), TREES)))
def test_any_data_yaml_is_an_error_or_plans(capfd: object, fields: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_dataset(root / "data", counts=(1, 1))
        known = yaml.safe_load(data.read_text())
        if isinstance(fields, dict):
            fields = {**known, **fields}
        put(data, yaml.safe_dump(fields, allow_unicode=True))
        recipe = write_recipe(root / "recipe.yaml", data, root / "out")
        before = tree(root)
        assert quiet_main("plan", str(recipe), "--no-look") in (0, 1, 2)
        assert tree(root) == before


@given(st.fixed_dictionaries({key: st.lists(rows, max_size=3) for key, rows in COCO_ROWS.items()}))
def test_any_coco_is_an_error_or_plans(capfd: object, more: dict[str, list[object]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_dataset(root / "data", counts=(2, 0))
        image = {"id": 70, "file_name": "01.jpg", "width": 64, "height": 48}
        box = {"id": 1, "image_id": 70, "category_id": 1, "bbox": [1, 1, 30, 30]}
        known = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "car"}]}
        put(root / "train.json", json.dumps({key: [*rows, *more[key]] for key, rows in known.items()}))
        part = {"images": "data/images/train", "annotations": "train.json"}
        fields = recipe_fields(Path(), root / "out", val_from_train=0.5) | {
            "dataset": {"format": "coco", "train": part}
        }
        put(root / "recipe.yaml", json.dumps(fields))
        before = tree(root)
        assert quiet_main("plan", str(root / "recipe.yaml"), "--no-look") in (0, 1, 2)
        assert tree(root) == before


@given(VOC_PIECES, VOC_PIECES, st.binary(max_size=60) | st.sampled_from([b"00 1", b"00.jpg", b"01\n\xed\xa0\x80"]))
def test_any_voc_is_an_error_or_plans(capfd: object, size: str, objects: str, names: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_dataset(root / "data", counts=(2, 0))
        put(root / "xml/00.xml", f"<annotation><size>{size}</size><object>{objects}</object></annotation>")
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        whole = f"<size><width>64</width><height>48</height></size><object><name>car</name>{box}</object>"
        put(root / "xml/01.xml", f"<annotation>{whole}<object>{objects}</object></annotation>")
        (root / "train.txt").write_bytes(names)
        part = {"images": "data/images/train", "annotations": "xml"}
        before = tree(root)
        for more in ({}, {"list": "train.txt"}):
            dataset = {"format": "voc", "train": {**part, **more}}
            fields = recipe_fields(Path(), root / "out", val_from_train=0.5) | {"dataset": dataset}
            recipe = put(root / "recipe.yaml", json.dumps(fields))
            assert quiet_main("plan", str(recipe), "--no-look") in (0, 1, 2)
            recipe.unlink()
            assert tree(root) == before


@given(st.sampled_from(["dataset", "output", "model", "detector", "device"]), HALVES)
def test_half_characters_in_a_recipe_are_an_error_or_plan(capfd: object, key: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        fields = recipe_fields(make_dataset(root / "data", counts=(1, 1)), root / "out") | {key: text}
        put(root / "recipe.yaml", json.dumps(fields))
        before = tree(root)
        assert quiet_main("plan", str(root / "recipe.yaml"), "--no-look") in (0, 1, 2)
        assert tree(root) == before


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_any_label_and_image_bytes_never_stop_a_run(label: bytes, image: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_dataset(root / "data", counts=(3, 1))
        (root / "data/labels/train/00.txt").write_bytes(label)
        (root / "data/images/train/01.jpg").write_bytes(image)
        recipe = write_recipe(root / "recipe.yaml", data, root / "out", conditions=["night"])
        before = tree(root / "data")
        with ten_seconds():
            summary, _ = make(recipe)
        assert summary.accepted >= 1
        assert summary.exit_code == 0
        assert tree(root / "data") == before
        exported = root / "out/dataset/labels/train/00.txt"
        assert exported.read_bytes() == label


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.just(b'{"commit":0,"crc":"00000000"}'),
            st.just(Record("a", "made").to_json().encode()),
        )
    )
)
def test_any_records_are_an_error_or_a_prefix(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        put(Path(name, "records-0.jsonl"), "").write_bytes(b"\n".join(lines))
        try:
            with ten_seconds():
                log = read_log(Path(name, "records-0.jsonl"))
        except DiffgenError:
            return
        assert 0 <= log.end <= len(b"\n".join(lines))
        assert all(isinstance(record, Record) for record in log.records.values())


@given(TREES)
def test_any_run_json_is_an_error_or_a_run_folder(capfd: object, state: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_dataset(root / "data", counts=(1, 1))
        fields = recipe_fields(data, root / "out")
        put(root / "out/recipe.yaml", yaml.safe_dump(fields))
        put(root / "out/run.json", json.dumps({"format": 1, **state} if isinstance(state, dict) else state))
        assert quiet_main("status", str(root / "out")) in (0, 1, 2)
