"""What of `controls` enters the ids of jobs."""

from __future__ import annotations

from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.types import ControlInput
from tests.fakes import settings
from tests.fakes_controls import EDGES, guided, ids, network, planned, recipe


def test_what_a_control_says_enters_every_id(tmp_path: Path, cache: FileCache) -> None:
    network(tmp_path / "other", content=3)
    network(tmp_path / "depth")
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    cases = [
        recipe(), recipe(EDGES), recipe({**EDGES, "kind": "softedge"}), recipe({**EDGES, "weight": 0.5}),
        recipe({**EDGES, "model": "other"}), recipe(EDGES, EDGES), recipe(depth), recipe({**depth, "estimator": "other"}),
    ]  # fmt: skip
    found = [ids(case, guided(case, tmp_path, cache)) for case in cases]
    assert len({one for case in found for one in case}) == 2 * len(cases)


def test_a_weight_spelled_out_and_a_place_change_no_id(tmp_path: Path, cache: FileCache) -> None:
    network(tmp_path / "copy")
    plain = recipe(EDGES)
    for same in (
        recipe({**EDGES, "weight": 1}),
        recipe({**EDGES, "model": "copy"}),
        recipe({**EDGES, "model": "./net"}),
    ):
        assert ids(same, guided(same, tmp_path, cache)) == ids(plain, guided(plain, tmp_path, cache))


def test_a_condition_without_controls_is_an_img2img_job(tmp_path: Path, cache: FileCache) -> None:
    plain = recipe(conditions=["fog", "night"])
    mixed = recipe(EDGES, conditions=["fog", {"night": {"controls": []}}])
    before = {i.job.settings.condition: i.job.id for i in planned(plain, guided(plain, tmp_path, cache)).items}
    items = planned(mixed, guided(mixed, tmp_path, cache)).items
    after = {i.job.settings.condition: i.job.id for i in items}
    assert after["night"] == before["night"]
    assert after["fog"] != before["fog"]
    assert {i.job.settings.condition: i.job.settings.editor for i in items} == {"fog": "controlnet", "night": "img2img"}


def test_own_maps_enter_the_job_by_their_bytes_and_not_by_their_place() -> None:
    def digest(folder: str | None, estimator: str | None = None) -> str:
        return settings(controls=(ControlInput("depth", "m", 1.0, estimator, folder),)).digest

    assert digest("here") == digest("there") != digest(None)
    assert settings(controls=None).digest == settings().digest
