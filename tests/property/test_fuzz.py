"""Whatever a file holds: one clear error or a result, never a traceback, and nothing written outside the run folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffgen.cli import main
from diffgen.errors import DiffgenError
from diffgen.labels import LabelError, parse_labels
from diffgen.store import read_records
from diffgen.types import Record
from tests.fakes import make, make_dataset, put, recipe_fields, tree, write_recipe

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

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


def quiet_main(*argv: str) -> int:
    return main(list(argv))


@QUICK
@given(st.one_of(st.binary(max_size=200), st.lists(st.lists(NUMBERS, max_size=9), max_size=5)), st.integers(0, 3))
def test_label_bytes_are_shapes_or_a_reason(raw: bytes | list[list[str]], classes: int) -> None:
    text = raw if isinstance(raw, bytes) else "\n".join(" ".join(row) for row in raw).encode()
    for keypoints in (None, (2, 3)):
        try:
            for shape in parse_labels(text, classes, keypoints):
                assert 0 <= shape.class_id < classes
        except LabelError as error:
            assert error.reason.replace("-", "").isalpha()


@QUICK
@given(TREES)
def test_any_recipe_is_an_error_or_plans(capfd: object, fields: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        put(root / "recipe.yaml", yaml.safe_dump(fields, allow_unicode=True))
        assert quiet_main("plan", str(root / "recipe.yaml")) in (0, 1, 2)
        assert set(tree(root)) == {"recipe.yaml"}


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_as_a_recipe(capfd: object, raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "recipe.yaml")
        path.write_bytes(raw)
        assert quiet_main("plan", str(path)) == 2


@QUICK
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


@settings(QUICK, max_examples=25)
@given(st.binary(max_size=120), st.binary(max_size=120))
def test_any_label_and_image_bytes_never_stop_a_run(label: bytes, image: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_dataset(root / "data", counts=(3, 1))
        (root / "data/labels/train/00.txt").write_bytes(label)
        (root / "data/images/train/01.jpg").write_bytes(image)
        recipe = write_recipe(root / "recipe.yaml", data, root / "out", conditions=["night"])
        before = tree(root / "data")
        summary, _ = make(recipe)
        assert summary.accepted >= 1
        assert summary.exit_code == 0
        assert tree(root / "data") == before
        exported = root / "out/dataset/labels/train/00.txt"
        assert exported.read_bytes() == label


@QUICK
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
        put(Path(name, "records.jsonl"), "").write_bytes(b"\n".join(lines))
        try:
            records, good = read_records(Path(name))
        except DiffgenError:
            return
        assert 0 <= good <= len(b"\n".join(lines))
        assert all(isinstance(record, Record) for record in records.values())


@QUICK
@given(TREES)
def test_any_run_json_is_an_error_or_a_run_folder(capfd: object, state: object) -> None:
    import json

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_dataset(root / "data", counts=(1, 1))
        fields = recipe_fields(data, root / "out")
        put(root / "out/recipe.yaml", yaml.safe_dump(fields))
        put(root / "out/run.json", json.dumps({"format": 1, **state} if isinstance(state, dict) else state))
        assert quiet_main("status", str(root / "out")) in (0, 1, 2)
