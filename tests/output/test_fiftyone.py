"""The lines of docs/fiftyone.md: against the real package where it is installed, and always against a stand-in."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import make, make_dataset, write_recipe

PAGE = Path(__file__).parents[2] / "docs/fiftyone.md"
# What is read back of the real package: for each slice (images, labels, those accepted).
READ = """
import json
found = {}
for name in dataset.group_slices:
    view = dataset.select_group_slices(name)
    labels = view.count("labels.detections")
    found[name] = [len(view), labels, view.count_values("verdict").get("accepted", 0) if name != "source" else 0]
group = next(iter(dataset.iter_groups()))
assert len({sample.group.id for sample in group.values()}) == 1
assert group["night-0"].filepath.endswith(f"{group['night-0'].job}.jpg")
box = group["source"].labels.detections[0]
print("FOUND", json.dumps([found, box.label, [round(x, 6) for x in box.bounding_box]]))
dataset.delete()
"""


@pytest.fixture
def lines(tmp_path: Path) -> str:
    """The lines, for a run of three photographs whose fogs were all rejected."""
    recipe = write_recipe(
        tmp_path / "r.yaml",
        make_dataset(tmp_path / "data", counts=(3, 1)),
        tmp_path / "out",
        conditions=["night", "fog"],
    )
    make(recipe, sets=["conditions.fog.checks={structure: 1}", "attempts=1"])
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert "runs/winter" in first
    return str(first.replace("runs/winter", str(tmp_path / "out")) + second)


def stand_in() -> Any:
    """The classes of fiftyone that the lines use. `dataset.samples` are what was added."""

    def anything(**fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    class Group:
        def element(self, name: str) -> tuple[Group, str]:
            return self, name

    class Dataset:
        def __init__(self, name: str) -> None:
            self.name, self.samples, self.group_field = name, [], ""

        def add_group_field(self, name: str, default: str) -> None:
            self.group_field = name

        def add_samples(self, samples: list[Any]) -> None:
            self.samples += samples

        def select_group_slices(self, name: str) -> Any:
            return SimpleNamespace(count_values=lambda field: {})

    return SimpleNamespace(Detection=anything, Detections=anything, Sample=anything, Group=Group, Dataset=Dataset)


def test_they_group_each_photograph_with_its_edits(lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in())
    names: dict[str, Any] = {}
    exec(compile(lines, str(PAGE), "exec"), names)
    samples = names["dataset"].samples
    assert [sample.group[1] for sample in samples].count("source") == 3
    groups: dict[int, set[str]] = {}
    for sample in samples:
        groups.setdefault(id(sample.group[0]), set()).add(sample.group[1])
        assert Path(sample.filepath).is_file()
    assert list(groups.values()) == [{"source", "night-0", "fog-0"}] * 3
    assert {sample.verdict for sample in samples if sample.group[1] == "night-0"} == {"accepted"}
    assert {sample.verdict for sample in samples if sample.group[1] == "fog-0"} == {"structure"}
    box = samples[0].labels.detections[0]
    assert (box.label, box.bounding_box) == ("car", pytest.approx([0.15, 0.2, 0.3, 0.4]))


@pytest.mark.skipif(find_spec("fiftyone") is None, reason="fiftyone is not installed")
def test_the_real_package_takes_them(lines: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(lines + READ, "utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = re.findall(r"FOUND (.*)", done.stdout)
    slices = '{"source": [3, 4, 0], "night-0": [3, 4, 3], "fog-0": [3, 4, 0]}'
    assert found == f'[{slices}, "car", [0.15, 0.2, 0.3, 0.4]]'
