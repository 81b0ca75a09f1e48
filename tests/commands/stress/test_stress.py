"""Stress tests: val under each condition and severity, by a detector without torch that loses what it is told to lose."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from diffgen.commands.eval.request import read_shares
from diffgen.commands.stress.look import FLOOR, sentences
from diffgen.commands.stress.page import stress_text
from diffgen.commands.stress.stress import StressRequest, read_fail_under, stress
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.session import open_run
from tests.fakes import FakeEditor, fake_worker, make_dataset, put, write_recipe

# It finds each label, but of persons none in pictures of night from severity .6 on. "person" is its class 0, "car" its class 1.
DETECTOR = """
import json, os, sys
job = json.load(open(sys.argv[1]))
assert "data" not in job, "it must not be trained"
with open(os.environ["CALLS"], "a") as log:
    log.write(" ".join(sorted(job["tests"])) + "\\n")
found = {}
for name, data in job["tests"].items():
    severity, _, condition = name.partition("-")
    folder = os.path.join(os.path.dirname(data), "labels/val")
    rows = {}
    for file in sorted(os.listdir(folder)):
        rows[file[:-4]] = []
        for line in open(os.path.join(folder, file)):
            c, x, y, w, h = map(float, line.split()[:5])
            if condition == "night" and float(severity) >= 0.6 and c == 1:
                continue
            box = [(x - w / 2) * 160, (y - h / 2) * 120, (x + w / 2) * 160, (y + h / 2) * 120]
            rows[file[:-4]].append([1 - int(c), 0.9, *box])
    found[name] = {"names": ["person", "car"], "detections": rows}
json.dump(found, open(job["results"], "w"))
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return put(tmp_path / "calls", "")


def stressed(folder: Path, editor: FakeEditor | None = None, **fields: Any) -> dict[str, Any]:
    if not (folder / "data").exists():
        make_dataset(folder / "data", counts=(2, 24), size=(160, 120))
    recipe = write_recipe(
        folder / "r.yaml", folder / "data/data.yaml", folder / "out", conditions=["night", "heavy-fog"]
    )
    weights, script = put(folder / "best.pt", "weights"), put(folder / "detector.py", DETECTOR)
    given = {"recipe": load_recipe(recipe), "weights": weights, "severities": (0.3, 0.6, 1.0)}
    request = StressRequest(**{**given, **fields})
    command = (sys.executable, str(script))
    return stress(request, make_worker=lambda: fake_worker(editor or FakeEditor()), command=command)


def test_what_is_lost_is_found(tmp_path: Path, calls: Path) -> None:
    facts = stressed(tmp_path)
    at = {(cell["condition"], cell["severity"]): cell for cell in facts["cells"]}
    assert set(at) == {(name, s) for name in ("night", "heavy-fog") for s in (0.3, 0.6, 1.0)} | {(FLOOR, 0.0)}
    assert {cell["pictures"] for cell in at.values()} == {24}
    persons = {key: sum(n for n, _ in cell["objects"]["person"].values()) for key, cell in at.items()}
    for key, cell in at.items():
        lost = key[0] == "night" and key[1] >= 0.6
        assert cell["lost"] == (persons[key] if lost else 0)
        assert cell["map50"] == pytest.approx(0.5 if lost else 1.0, abs=0.01)
    assert facts["clean"]["map50"] == pytest.approx(1.0, abs=0.01)
    assert len(facts["sentences"]) == 1
    assert facts["sentences"][0].startswith("loses person ")
    assert facts["sentences"][0].endswith("from night 0.6 on (100% at 1)")
    assert facts["sentences"][0] in stress_text(facts)
    assert facts["exit_code"] == 0


def test_the_page_shows_what_flipped_and_what_was_tested(tmp_path: Path, calls: Path) -> None:
    facts = stressed(tmp_path)
    page = (tmp_path / "out-stress/report.html").read_text("utf-8")
    assert facts["sentences"][0] in page
    assert facts["weights_sha256"] in page
    assert "What this does not show" in page
    assert facts["gallery"]
    for flip in facts["gallery"]:
        assert flip["condition"] == "night"
        assert f'src="{flip["file"]}"' in page
        picture = Image.open(tmp_path / "out-stress" / flip["file"])
        assert picture.size == (1284, 480)
    assert json.loads((tmp_path / "out-stress/results.json").read_text("utf-8"))["sentences"] == facts["sentences"]


def test_nothing_of_it_can_be_trained_on(tmp_path: Path, calls: Path) -> None:
    stressed(tmp_path)
    assert not (tmp_path / "out-stress/run/dataset").exists()
    for data in (tmp_path / "out-stress").rglob("data.yaml"):
        fields = yaml.safe_load(data.read_text("utf-8"))
        assert not (data.parent / fields["train"]).exists()
    edited = {entry.item.source.split for entry in open_run(tmp_path / "out-stress/run").entries}
    assert edited == {"val"}


def test_a_second_time_it_makes_and_asks_nothing(tmp_path: Path, calls: Path) -> None:
    first = stressed(tmp_path)
    editor = FakeEditor()
    assert stressed(tmp_path, editor) == first
    assert editor.made == []
    assert len(calls.read_text().splitlines()) == 1
    stressed(tmp_path, severities=(0.3, 0.6, 0.8, 1.0))
    assert calls.read_text().splitlines()[1:] == ["0.8-heavy-fog 0.8-night"]


def test_a_floor_in_ci(tmp_path: Path, calls: Path) -> None:
    facts = stressed(tmp_path, fail_under=0.7)
    assert facts["exit_code"] == 3
    assert [line.partition(":")[0] for line in facts["failed_under"]] == ["night 0.6", "night 1"]
    assert stressed(tmp_path, fail_under=0.4)["exit_code"] == 0


def test_another_dataset_s_val(tmp_path: Path, calls: Path) -> None:
    other = make_dataset(tmp_path / "other", counts=(1, 5), size=(160, 120))
    assert stressed(tmp_path, data=other)["pictures"] == 5


def test_pictures_whose_labels_are_in_doubt_are_left_out_and_counted(tmp_path: Path, calls: Path) -> None:
    class Black(FakeEditor):
        def pixels(self, image: Any, job: Any, *rest: Any) -> Any:
            return image * 0 if job.settings.strength == 0.6 else super().pixels(image, job, *rest)

    facts = stressed(tmp_path, Black())
    assert facts["left_out"] == {"degenerate": 48}
    empty = [cell for cell in facts["cells"] if cell["severity"] == 0.6]
    assert [(cell["pictures"], cell["map50"]) for cell in empty] == [(0, None), (0, None)]
    facts = stressed(tmp_path, Black(), fail_under=0.1)
    assert facts["failed_under"] == ["night 0.6: not tested", "heavy-fog 0.6: not tested"]
    assert facts["exit_code"] == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"weights": Path("nowhere.pt")}, "there is no file nowhere.pt")],
)
def test_wrong_requests(tmp_path: Path, calls: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stressed(tmp_path, **fields)


def test_a_sentence_needs_enough_objects_and_more_than_the_round_trip_loses() -> None:
    def cell(condition: str, severity: float, lost: int, found: int = 20) -> dict[str, Any]:
        objects = {"car": {"small": [found, lost], "medium": [0, 0], "large": [0, 0]}}
        return {"condition": condition, "severity": severity, "objects": objects}

    floor = cell(FLOOR, 0, 4)
    rows = [cell("fog", 0.2, 12), cell("fog", 0.4, 8), cell("fog", 0.6, 11), cell("fog", 0.8, 15)]
    assert sentences([*rows, floor], floor, ["car"]) == ["loses car under 32 px from fog 0.6 on (75% at 0.8)"]
    assert sentences([*rows, floor], cell(FLOOR, 0, 10), ["car"]) == []
    gone = [cell("fog", 0.8, 180, 200), cell("fog", 1, 5, 5)]
    assert sentences(gone, floor, ["car"]) == ["loses car under 32 px from fog 0.8 on (90% at 0.8)"], (
        "the last is too few"
    )
    back = [cell("fog", 0.6, 180, 200), cell("fog", 1, 50, 200)]
    assert sentences(back, floor, ["car"]) == ["loses car under 32 px at fog 0.6 (90% at 0.6)"], "it does not last"
    assert sentences([cell("fog", 0.6, 9, 9)], None, ["car"]) == []


def test_words_of_the_command_line() -> None:
    assert read_shares("--severities", "1,0.5") == (0.5, 1.0)
    assert read_fail_under("map50=0.4") == 0.4
    for wrong in ("", "0,1", "0.5,2", "high"):
        with pytest.raises(UsageError):
            read_shares("--severities", wrong)
    for wrong in ("0.4", "map50=x", "map50=2", "recall=0.4"):
        with pytest.raises(UsageError):
            read_fail_under(wrong)
