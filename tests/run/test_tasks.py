"""Tasks from the recipe to the label files: what is painted, what stays bit for bit, which rows go and come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.annotators import same_names
from diffgen.blend import filled, native
from diffgen.checks import judge, judged_clip, judged_happened, judged_structure
from diffgen.detect import Box
from diffgen.errors import UsageError
from diffgen.formats.yolo import label_path
from diffgen.geometry import decode
from diffgen.labels import parse_labels
from diffgen.overview import overview, overview_text
from diffgen.recipe import Checks, load_recipe
from diffgen.run import export, prepare, run
from diffgen.store import read_present
from diffgen.sweeps import Look, cells_of, read_sweep
from diffgen.types import Job, Record
from diffgen.worker import Worker
from tests.fakes import ROWS, Asked, FakeEditor, make_dataset, photo, put, save, tree, write_recipe

MAGENTA = (255, 0, 255)  # what the detector below takes for a person, class 1
SIZE = (160, 96)
FEATHER = 4
REMOVE = {"name": "without", "task": "remove", "classes": ["person"], "prompt": "a photo of {objects} on a road"}
BACKGROUND = {"name": "elsewhere", "task": "background", "prompt": "a photo of {objects} in a desert"}
INSERT = {"name": "with", "task": "insert", "classes": ["person"], "prompt": "a photo of {objects}"}


@dataclass
class Painter(FakeEditor):
    """Inverts every picture, and paints magenta where something is to be inserted. A lazy one changes nothing."""

    lazy: bool = False
    most: int = 10**9  # batches, then it dies

    def begin(self, asked: Asked) -> None:
        if len(self.batches) > self.most:
            raise ArithmeticError("killed")

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        assert mask is not None
        assert mask.shape == image.shape[:2]
        made = image.copy() if self.lazy else 255 - image
        if job.settings.task == "insert" and not self.lazy:
            made[mask > 0.99] = MAGENTA
        return made


def find_magenta(images: Sequence[np.ndarray]) -> list[list[Box]]:
    """Detects people, by their colour."""
    found: list[list[Box]] = []
    for image in images:
        rows, columns = np.nonzero(np.abs(image.astype(int) - MAGENTA).max(-1) < 40)
        height, width = image.shape[:2]
        box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height) if len(rows) else None  # fmt: skip
        found.append([Box(7, 0.9, tuple(map(float, box)))] if box else [])
    return found


def street(root: Path, kind: str = "detect", **keys: Any) -> Path:
    """Four train pictures, with a car each, and a magenta person in every other one; PNG."""
    data = make_dataset(root / "data", counts=(4, 1), kind=kind, size=SIZE, **keys)
    for i, path in enumerate(sorted((root / "data/images/train").iterdir())):
        path.unlink()
        pixels = photo(i, SIZE)
        if i % 2:
            person = parse_labels(ROWS[kind][1].encode(), 2, (2, 3) if kind == "pose" else None)
            pixels[filled(person, native(*SIZE))] = MAGENTA
        save(path.with_suffix(".png"), pixels)
    return data


def work(
    root: Path, condition: dict[str, Any], editor: Any = None, name: str = "out", kind: str = "detect", **fields: Any
) -> tuple[Any, Painter, Path]:
    data = root / "data/data.yaml"
    if not data.exists():
        street(root, kind)
    given = {
        "editor": "inpaint", "conditions": [condition], "image": {"format": "png"}, "batch_size": 2,
        "objects": {"feather": FEATHER}, "resolution": {"long_side": 160}, **fields,
    }  # fmt: skip
    if condition["task"] == "insert":
        given.setdefault("detector", str(put(root / "detector.pt", "")))
    recipe = write_recipe(root / f"{name}.yaml", data, root / name, **given)
    editor = editor or Painter()
    return again(recipe, editor, kind), editor, recipe


def again(recipe: Path, editor: Any, kind: str = "detect") -> Any:
    keypoints = (2, 3) if kind == "pose" else None
    worker = Worker(editor, 2, keypoints, {"device": "fake"}, find_magenta, known={1: 7})
    return run(load_recipe(recipe), make_worker=lambda: worker)


def made(root: Path, condition: dict[str, Any], name: str = "out") -> dict[str, tuple[np.ndarray, bytes]]:
    """Source name -> the picture made of it, and its label file."""
    paths = sorted((root / name / "dataset/images/train").glob(f"*__{condition['name']}-*.png"))
    return {p.name.split("__")[0]: (decode(p.read_bytes()), Path(label_path(str(p))).read_bytes()) for p in paths}


def manifest(root: Path, name: str = "out") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (root / name / "dataset/manifest.jsonl").read_text().splitlines()[1:]]
    return [row for row in rows if "job" in row]


def original(root: Path, name: str) -> np.ndarray:
    return decode((root / f"data/images/train/{name}.png").read_bytes())


def inside(box: Sequence[float], grow: int) -> np.ndarray:
    """(H, W): the pixels of a box (x0, y0, x1, y1 in shares) grown by so many pixels, or shrunk."""
    width, height = SIZE
    ys, xs = np.mgrid[:height, :width]
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    return (xs >= x0 - grow) & (xs < x1 + grow) & (ys >= y0 - grow) & (ys < y1 + grow)


# --- labels and pixels, task by task


@pytest.mark.parametrize("kind", ["detect", "segment", "obb", "pose"])
def test_remove_takes_the_object_and_its_row(tmp_path: Path, kind: str) -> None:
    summary, _, _ = work(tmp_path, REMOVE, kind=kind)
    assert (summary.planned, summary.accepted) == (2, 2), "the pictures without a person are not planned"
    pictures = made(tmp_path, REMOVE)
    assert list(pictures) == ["01", "03"]
    for name, (picture, label) in pictures.items():
        assert label == f"{ROWS[kind][0]}\n".encode()
        person = parse_labels(ROWS[kind][1].encode(), 2, (2, 3) if kind == "pose" else None)[0]
        source = original(tmp_path, name)
        far = ~inside(person.box, FEATHER + 1)
        assert np.array_equal(picture[far], source[far]), "what is not painted is the source's own, bit for bit"
        assert (picture[55:65, 115:125] != source[55:65, 115:125]).all()
    assert [row["dropped_rows"] for row in manifest(tmp_path)] == [[1], [1]]
    assert (tmp_path / "out/dataset/labels/train/01.txt").read_text() == "".join(f"{row}\n" for row in ROWS[kind])


def test_remove_without_classes_leaves_an_empty_label_file(tmp_path: Path) -> None:
    everything = {key: value for key, value in REMOVE.items() if key != "classes"}
    summary, _, _ = work(tmp_path, everything)
    assert (summary.planned, summary.accepted) == (4, 4)
    assert {label for _, label in made(tmp_path, everything).values()} == {b""}


def test_background_keeps_the_objects_and_their_labels(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/00.txt", "")
    summary, _, _ = work(tmp_path, BACKGROUND)
    assert (summary.planned, summary.accepted) == (3, 3), "a picture without objects has nothing to keep"
    for name, (picture, label) in made(tmp_path, BACKGROUND).items():
        assert label == (tmp_path / f"data/labels/train/{name}.txt").read_bytes()
        source = original(tmp_path, name)
        objects = [shape.box for shape in parse_labels(label, 2)]
        kept = np.any([inside(box, 0) for box in objects], axis=0)
        near = np.any([inside(box, FEATHER + 1) for box in objects], axis=0)
        assert np.array_equal(picture[kept], source[kept])
        assert np.array_equal(picture[~near], 255 - source[~near]), "beyond the feather nothing of the source is left"
    assert not any("dropped_rows" in row or "added_rows" in row for row in manifest(tmp_path))


@pytest.mark.parametrize(("kind", "columns"), [("detect", 5), ("segment", 9), ("obb", 9)])
def test_insert_adds_a_row_in_the_file_s_own_form(tmp_path: Path, kind: str, columns: int) -> None:
    summary, _, _ = work(tmp_path, INSERT, kind=kind)
    assert summary.accepted == summary.planned >= 2
    for name, (picture, label) in made(tmp_path, INSERT).items():
        before = (tmp_path / f"data/labels/train/{name}.txt").read_bytes()
        assert label.startswith(before), "what was there stays, byte for byte"
        row = label[len(before) :].decode()
        assert row.endswith("\n")
        assert (row.split()[0], len(row.split())) == ("1", columns)
        assert all(len(number.split(".")[1]) == 6 for number in row.split()[1:])
        *others, new = parse_labels(label, 2)
        source, changed = original(tmp_path, name), inside(new.box, FEATHER + 1)
        assert np.array_equal(picture[~changed], source[~changed])
        assert (np.abs(picture[inside(new.box, -1)].astype(int) - MAGENTA).max(-1) < 40).all(), (
            "it is where the label is"
        )
        for other in others:
            assert not (inside(other.box, 0) & changed).any()
    rows = manifest(tmp_path)
    assert all(
        row["added_rows"] == [made(tmp_path, INSERT)[row["source"][-2:]][1].decode().splitlines()[-1]] for row in rows
    )
    assert all(row["facts"]["confirmed"]["iou"] > 0.5 for row in rows)


def test_insert_into_pictures_without_labels(tmp_path: Path) -> None:
    street(tmp_path, "segment")
    (tmp_path / "data/labels/train/00.txt").unlink()
    put(tmp_path / "data/labels/train/02.txt", "")
    work(tmp_path, INSERT, kind="segment")
    for name in ("00", "02"):
        _, label = made(tmp_path, INSERT)[name]
        assert len(label.split()) == 9, "an outline, as everywhere in this dataset"
    export(load_recipe(tmp_path / "out"))
    assert not (tmp_path / "out/dataset/labels/train/00.txt").exists(), "the source has no label file, as before"


def test_sources_of_another_size_than_the_model_s(tmp_path: Path) -> None:
    """The mask is made at the source's own size too, so that scaling there and back touches nothing outside."""
    summary, _, _ = work(tmp_path, REMOVE, resolution={"long_side": 72})
    assert summary.accepted == 2
    for name, (picture, _) in made(tmp_path, REMOVE).items():
        (person,) = parse_labels(ROWS["detect"][1].encode(), 2)
        far = ~inside(person.box, round(FEATHER * 160 / 72) + 1)
        assert np.array_equal(picture[far], original(tmp_path, name)[far])


def test_only_the_kept_classes_are_named_in_a_prompt(tmp_path: Path) -> None:
    street(tmp_path)
    items = plan_of(tmp_path, [REMOVE, BACKGROUND, INSERT]).items
    prompts = {i.job.settings.condition: i.job.prompt for i in items if i.source.name == "01" or i.job.place}
    assert prompts == {
        "without": "a photo of a car on a road",
        "elsewhere": "a photo of a car and a person in a desert",
        "with": "a photo of a person",
    }


# --- what is not true is not accepted


def test_what_the_detector_still_finds_is_rejected(tmp_path: Path) -> None:
    summary, _, recipe = work(tmp_path, REMOVE, Painter(lazy=True))
    assert summary.rejected == {"still-there": 2}
    assert made(tmp_path, REMOVE) == {}
    assert again(recipe, Painter()).rejected == {"still-there": 2}, "derived from what was recorded"


def test_what_the_detector_does_not_find_is_not_labelled(tmp_path: Path) -> None:
    summary, _, _ = work(tmp_path, INSERT, Painter(lazy=True))
    assert list(summary.rejected) == ["not-confirmed"]
    assert summary.accepted == 0


def test_an_object_hidden_by_one_that_stays_cannot_be_removed(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/01.txt", f"0 0.75 0.6 0.3 0.4\n{ROWS['detect'][1]}\n")
    summary, _, _ = work(tmp_path, REMOVE)
    assert (summary.accepted, summary.rejected) == (1, {"still-there": 1})


def test_a_rejected_task_is_tried_with_another_seed_at_the_same_strength(tmp_path: Path) -> None:
    summary, editor, _ = work(tmp_path, REMOVE, Painter(lazy=True), attempts=3)
    records = read_present(tmp_path / "out", "png").values()
    assert len(set(editor.made)) == len(records) == 6
    assert {record.facts["strength"] for record in records} == {1.0}
    assert summary.rejected == {"still-there": 2}


def record(**facts: Any) -> Record:
    plain = {
        "contrast": 0.2, "shift_px": 40.0, "shift_peak": 0.9, "structure": [0.9, -0.5], "sides_px": [30.0, 30.0],
        "structure_image": -0.2, "before": [0.0] * 8, "after": [0.0] * 8, "clip": [0.3, 0.1],
    }  # fmt: skip
    return Record("id", "made", {**plain, **facts})


def test_a_task_is_judged_by_what_it_keeps() -> None:
    removed = record(task="remove", removed=[1], painted=[1.0])
    assert judge(removed, Checks(), "night").accepted, "no shift, no lost object, no night, no words"
    assert judge(record(task="remove", removed=[0], painted=[1.0]), Checks()).reason == "structure"
    assert judged_structure(record(task="remove", removed=[0, 1], painted=[1, 1]).facts) is None
    assert judged_happened(removed.facts, "night") is None
    assert judged_clip(removed.facts) is None
    assert judged_clip(record(task="background").facts) == -0.2
    assert judge(record(task="remove", removed=[1], painted=[1.0], contrast=0.0), Checks()).reason == "degenerate"
    assert judge(record(structure=[0.9, 0.9]), Checks()).reason == "registration", "other edits are judged as before"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"task": "remove", "removed": [1], "painted": [0.7]}, "still-there"),
        ({"task": "remove", "removed": [1], "painted": [1.0], "still": [0.5]}, "still-there"),
        ({"task": "remove", "removed": [1], "painted": [1.0], "still": [0.49]}, None),
        ({"task": "remove", "removed": [1], "painted": [1.0], "still": [None]}, None),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}, "confirmed": None}, "not-confirmed"),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}, "confirmed": {"iou": 0.49}}, "not-confirmed"),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}}, "not-confirmed"),
        ({"task": "insert", "added": {"class": 1, "box": [0, 0, 1, 1]}, "confirmed": {"iou": 0.5}}, None),
    ],
)
def test_verdicts_of_tasks(facts: dict[str, Any], reason: str | None) -> None:
    assert judge(record(**{"structure": [0.9, 0.9], **facts}), Checks()).reason == reason


def test_a_model_that_fails_is_seen_though_the_source_hides_most_of_it(tmp_path: Path) -> None:
    class Black(Painter):
        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return np.zeros_like(image)

    summary, _, _ = work(tmp_path, REMOVE, Black())
    assert summary.rejected == {"degenerate": 2}


# --- runs


@pytest.mark.parametrize("condition", [REMOVE, BACKGROUND, INSERT], ids=lambda c: c["task"])
def test_a_run_that_was_cut_short_ends_in_the_same_bytes(tmp_path: Path, condition: dict[str, Any]) -> None:
    work(tmp_path, condition, name="whole", batch_size=1)
    with pytest.raises(ArithmeticError):
        work(tmp_path, condition, Painter(most=1), name="cut", batch_size=1)
    summary, editor, _ = work(tmp_path, condition, name="cut", batch_size=1)
    assert 0 < len(editor.made) <= summary.planned
    assert tree(tmp_path / "whole/dataset") == tree(tmp_path / "cut/dataset")


def test_export_judges_again_without_making_an_image(tmp_path: Path) -> None:
    _, _, recipe = work(tmp_path, REMOVE)
    before = tree(tmp_path / "out/dataset")
    assert export(load_recipe(recipe, ["checks.contrast=1"])).accepted == 0
    assert made(tmp_path, REMOVE) == {}
    assert export(load_recipe(recipe)).accepted == 2
    assert tree(tmp_path / "out/dataset") == before


# --- ids and plans


def test_every_part_of_a_task_is_part_of_the_id(tmp_path: Path) -> None:
    street(tmp_path)
    everything = {key: value for key, value in REMOVE.items() if key != "classes"}
    sets = [(REMOVE, {}), (everything, {}), (REMOVE, {"objects": {"feather": 9}}), ({**BACKGROUND, "prompt": REMOVE["prompt"]}, {})]  # fmt: skip
    ids = []
    for i, (condition, fields) in enumerate(sets):
        _, editor, _ = work(tmp_path, {**condition, "name": "same"}, name=f"o{i}", **fields)
        ids.append(set(editor.made))
    assert all(not a & b for n, a in enumerate(ids) for b in ids[n + 1 :])


def plan_of(root: Path, conditions: Any, **fields: Any) -> Any:
    usual = {"editor": "inpaint", "objects": {"feather": FEATHER}, "resolution": {"long_side": 160}}
    fields = {**usual, "conditions": conditions, "detector": str(put(root / "d.pt", "")), **fields}
    return prepare(load_recipe(write_recipe(root / "r.yaml", root / "data/data.yaml", root / "out", **fields))).plan


def test_a_picture_more_moves_few_places(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(30, 1), size=SIZE)
    before = {item.source.name: item.job for item in plan_of(tmp_path, [INSERT]).items}
    save(tmp_path / "data/images/train/zz.jpg", photo(77, SIZE))
    put(tmp_path / "data/labels/train/zz.txt", "1 0.5 0.5 0.11 0.35\n")
    after = {item.source.name: item.job for item in plan_of(tmp_path, [INSERT]).items}
    assert len(before) >= 12
    assert sum(name not in after or after[name].id != job.id for name, job in before.items()) <= len(before) // 3


def test_variants_get_places_of_their_own(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(6, 1), size=SIZE)
    items = plan_of(tmp_path, [INSERT], variants=3).items
    assert len(items) % 3 == 0
    assert len({item.job.place for item in items}) > len(items) // 2


def test_a_preview_shows_sources_that_suit_the_task(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/00.txt", "")
    plan = plan_of(tmp_path, [REMOVE, BACKGROUND])
    loaded = load_recipe(tmp_path / "r.yaml")
    model = prepare(loaded).model
    shown = cells_of(loaded, Look(number=4), plan, model)
    assert [(cell.item.source.name, cell.label) for cell in shown] == [
        ("01", "without"), ("01", "elsewhere"), ("02", "elsewhere"), ("03", "without"), ("03", "elsewhere"),
    ]  # fmt: skip
    assert {cell.item.job.id for cell in shown} <= {item.job.id for item in plan.items}
    with pytest.raises(UsageError, match="says which images there are"):
        read_sweep("classes=[car],[person]")


def test_one_condition_each_is_chosen_from_those_that_fit(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/00.txt", "")
    plan = plan_of(tmp_path, [REMOVE, BACKGROUND], assign="one")
    chosen = {source.name: [condition.name for condition, _ in edits] for source, edits in plan.edits}
    assert chosen["00"] == []
    assert chosen["02"] == ["elsewhere"]
    assert all(len(names) == 1 for name, names in chosen.items() if name != "00")


WRONG = [
    ({"conditions": ["night"]}, r"'night' has no task, and model .* \(inpaint\)"),
    ({"editor": "instruct", "conditions": [REMOVE]}, r"'without': task: remove is not for model .* \(instruct\)"),
    ({"conditions": [{**REMOVE, "classes": ["lorry"]}]}, "classes: the dataset has no class 'lorry'"),
    ({"conditions": [{**BACKGROUND, "classes": ["car"]}]}, "classes: only for task: remove and task: insert"),
    ({"conditions": [{**INSERT, "classes": ["car", "person"]}]}, "exactly one class"),
    ({"conditions": [INSERT], "detector": None}, r"'with' inserts an object, .* in detector:"),
    ({"conditions": [{**REMOVE, "strength": 0.5}]}, "strength 0.5 with task: remove"),
    ({"conditions": [REMOVE], "objects": {"strength": 0.2}}, "objects.strength, objects.detail and detail do nothing"),
    ({"conditions": [REMOVE], "detail": 0.2}, "objects.strength, objects.detail and detail do nothing"),
    ({"conditions": [INSERT], "resolution": {"mode": "tile"}}, "in tiles an object would be painted into each"),
    ({"conditions": [{**REMOVE, "task": "replace"}]}, "background.*remove.*insert"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=[words[:24] for _, words in WRONG])
def test_what_cannot_be_is_said_before_any_work(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    street(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        plan_of(tmp_path, **{"conditions": [], **fields})
    assert caught.value.hint


def test_insert_refuses_pose_datasets(tmp_path: Path) -> None:
    street(tmp_path, "pose")
    with pytest.raises(UsageError, match="nothing knows the keypoints"):
        plan_of(tmp_path, [INSERT])


def test_insert_refuses_datasets_without_any_object(tmp_path: Path) -> None:
    street(tmp_path)
    for path in (tmp_path / "data/labels/train").iterdir():
        put(path, "")
    with pytest.raises(UsageError, match="none to learn sizes and places from"):
        plan_of(tmp_path, [INSERT])


def test_a_task_paints_from_noise_unless_told_otherwise(tmp_path: Path) -> None:
    street(tmp_path)
    items = plan_of(tmp_path, [BACKGROUND, {**BACKGROUND, "name": "b", "strength": 0.5}]).items
    assert {item.job.settings.condition: item.job.settings.strength for item in items} == {"elsewhere": 1.0, "b": 0.5}


def test_the_run_folder_remembers_the_task(tmp_path: Path) -> None:
    work(tmp_path, REMOVE)
    kept = load_recipe(tmp_path / "out").recipe.conditions[0]
    assert (kept.task, kept.classes, kept.strength) == ("remove", ["person"], 1.0)
    assert again(tmp_path / "out", Painter()).made_now == 0


def test_classes_are_known_by_name() -> None:
    assert same_names(["car", "Traffic-Light", "snowplough"], ["traffic light", "person", "CAR"]) == {0: 2, 1: 0}


@pytest.mark.parametrize(
    ("condition", "rows", "fields", "why"),
    [
        (INSERT, "0 0.5 0.5 1 1\n", {}, "no selected picture has free ground for a person"),
        (REMOVE, "0 0.5 0.5 1 1\n", {}, "no selected picture has a labelled person"),
        ({**REMOVE, "classes": None}, "", {}, "no selected picture has a labelled object"),
        (BACKGROUND, "", {}, "no selected picture has a labelled object"),
        (BACKGROUND, "0 0.5 0.5 1 1\n", {"select": {"share": 1e-9}}, "no picture is selected that can be edited"),
        ({**BACKGROUND, "share": 1e-9}, "0 0.5 0.5 1 1\n", {}, "its share fell on none of the pictures"),
    ],
)
def test_plan_says_why_a_task_has_no_picture(
    tmp_path: Path, condition: dict[str, Any], rows: str, fields: dict[str, Any], why: str
) -> None:
    data = street(tmp_path)
    for path in (tmp_path / "data/labels/train").iterdir():
        put(path, rows)
    put(tmp_path / "detector.pt", "weights")
    recipe = write_recipe(
        tmp_path / "r.yaml",
        data,
        tmp_path / "out",
        editor="inpaint",
        detector="detector.pt",
        conditions=[condition],
        **fields,
    )
    facts = overview(load_recipe(recipe))
    assert facts["idle"][condition["name"]].startswith(why)
    assert f"none: {why}" in overview_text(facts)
