"""`controls` of a recipe: what they mean, what is refused, what enters the ids, and the worker's way with maps. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffgen.cache import FileCache
from diffgen.controls import canny
from diffgen.errors import DiffgenError, UsageError
from diffgen.geometry import View, decode
from diffgen.guides import require_networks, resolve_guided, revisions, with_revisions
from diffgen.models import Model
from diffgen.overview import overview, overview_text
from diffgen.plan import Plan, plan_jobs
from diffgen.recipe import Recipe, load_recipe, recipe_schema
from diffgen.run import prepare, run, status
from diffgen.sources import Dataset
from diffgen.types import Guide
from diffgen.weights import at_revision, resolve_weights
from tests.fakes import (
    Asked,
    FakeEditor,
    fake_worker,
    make,
    make_dataset,
    photo,
    put,
    save,
    settings,
    source,
    write_recipe,
)

COMMIT = "ab" * 20
BASE = {"hub": "tests/fake", "revision": "0" * 40, "native": 64, "multiple": 8}


def network(folder: Path, *tensors: str, content: int = 0) -> Path:
    """A folder with config and a header of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in tensors or ("w",)})
    raw = len(header).to_bytes(8, "little") + header.encode() + bytes([content] * 4)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(raw)
    return folder


def cached(hub: Path, hub_id: str, *tensors: str) -> None:
    """The same in the cache of the hub."""
    folder = hub / f"models--{hub_id.replace('/', '--')}"
    put(folder / "refs" / "main", COMMIT)
    network(folder / "snapshots" / COMMIT, *tensors)


def recipe(*controls: dict[str, Any], **fields: Any) -> Recipe:
    given = {"dataset": "d.yaml", "output": "out", "model": BASE, "editor": "img2img", "conditions": ["fog"]}
    return Recipe.model_validate({**given, "controls": list(controls), **fields})


EDGES = {"kind": "canny", "model": "net"}


def guided(wanted: Recipe, base: Path, cache: FileCache) -> Model:
    network(base / "net")
    return resolve_guided(wanted, base, cache)


def planned(wanted: Recipe, model: Model, *sources: Any) -> Plan:
    every = (*(sources or (source(0), source(1))), source(99, split="val"))
    return plan_jobs(wanted, Dataset(Path("/d.yaml"), ("car",), {}, every), model)


def test_night_and_snow_leave_edges_out_where_another_map_is_there() -> None:
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    soft = {"kind": "softedge", "model": "net"}
    own = [{"night": {"controls": [EDGES]}}, {"snow": {"edges": True}}, "heavy-snow", "fog"]
    both = recipe(EDGES, depth, soft, conditions=own)
    kinds = [[control.kind for control in both.controls_for(condition)] for condition in both.conditions]
    assert kinds == [["canny"], ["canny", "depth", "softedge"], ["depth"], ["canny", "depth", "softedge"]]
    (night,) = recipe(EDGES, soft, conditions=["night"]).conditions
    assert len(recipe(EDGES, soft).controls_for(night)) == 2


# --- which editor, which files


def test_controls_choose_the_editor_by_themselves(tmp_path: Path, cache: FileCache) -> None:
    model = guided(recipe(EDGES, editor=None, model="sd15"), tmp_path, cache)
    assert model.editor == "controlnet"
    assert [(n.name, n.role) for n in model.networks] == [("net", "controlnet")]
    assert model.networks[0].identity.startswith("sha256:")
    assert guided(recipe(EDGES, editor="controlnet", model="sd15"), tmp_path, cache).editor == "controlnet"
    assert guided(recipe(editor=None, model="sd15"), tmp_path, cache).editor == "img2img"


def test_estimators_are_networks_too_each_once(tmp_path: Path, cache: FileCache) -> None:
    for name in ("depth", "seg"):
        network(tmp_path / name)
    wanted = recipe(
        {"kind": "depth", "model": "net", "estimator": "depth"},
        {"kind": "segmentation", "model": "net", "estimator": "seg"},
        conditions=["fog", {"night": {"controls": [{"kind": "depth", "model": "net", "estimator": "depth"}]}}],
    )
    model = guided(wanted, tmp_path, cache)
    roles = [("net", "controlnet"), ("depth", "depth"), ("seg", "segmentation")]
    assert [(n.name, n.role) for n in model.networks] == roles


def test_the_identity_is_that_of_the_content_and_not_of_the_place(tmp_path: Path, cache: FileCache) -> None:
    names = ["a", "b", "c"]
    for name, content in zip(names, (1, 1, 2), strict=True):
        network(tmp_path / name, content=content)
    found = [resolve_weights(name, "controlnet", tmp_path, cache).identity for name in names]
    assert found[0] == found[1] != found[2]


def test_hub_networks_by_their_commit(tmp_path: Path, cache: FileCache) -> None:
    unknown = resolve_weights("someone/net", "controlnet", tmp_path, cache)
    assert (unknown.identity, unknown.folder) == ("someone/net@unpinned", None)
    cached(tmp_path / "hub", "someone/net")
    known = resolve_weights("someone/net", "controlnet", tmp_path, cache)
    assert known.identity == f"someone/net@{COMMIT}"
    assert known.folder is not None
    other = "cd" * 20
    assert at_revision(known, other).identity == f"someone/net@{other}"
    pinned = resolve_weights(f"someone/net@{COMMIT}", "controlnet", tmp_path, cache)
    assert at_revision(pinned, other) == pinned
    assert pinned.identity == known.identity


def test_a_network_that_is_not_here_is_an_error_with_the_command(tmp_path: Path, cache: FileCache) -> None:
    wanted = recipe({"kind": "canny", "model": "someone/net@v2"})
    model = resolve_guided(wanted, tmp_path, cache)
    with pytest.raises(DiffgenError, match="ControlNet 'someone/net@v2' is not on this machine") as caught:
        require_networks(model, wanted)
    assert "hf download someone/net --revision v2" in str(caught.value.hint)


class FakeHub:
    """huggingface_hub's three functions: a repository with all that one may hold."""

    FILES = (
        "config.json", "preprocessor_config.json", "README.md", "diffusion_pytorch_model.bin", "sub/config.json",
        "merges.txt", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "other.safetensors",
    )  # fmt: skip

    def __init__(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        self.hub = hub
        self.wanted: list[str] = []
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)

    def model_info(self, hub_id: str, revision: str | None, timeout: float) -> Any:
        siblings = [type("File", (), {"rfilename": name}) for name in self.FILES]
        return type("Info", (), {"sha": COMMIT, "siblings": siblings})

    def snapshot(self, hub_id: str, revision: str, allow_patterns: list[str]) -> str:
        self.wanted = allow_patterns
        cached(self.hub, hub_id)
        return str(self.hub / f"models--{hub_id.replace('/', '--')}" / "snapshots" / revision)


def test_what_lacks_is_fetched_once_and_pinned(
    tmp_path: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHub(tmp_path / "hub", monkeypatch)
    wanted = recipe({"kind": "canny", "model": "someone/net"})
    before = resolve_guided(wanted, tmp_path, cache)
    model = require_networks(before, wanted)
    weights = "diffusion_pytorch_model.fp16.safetensors"
    assert fake.wanted == ["config.json", "preprocessor_config.json", "merges.txt", weights]
    assert model.networks[0].identity == f"someone/net@{COMMIT}"
    assert revisions(model)["someone/net"] == COMMIT
    assert ids(wanted, model) != ids(wanted, before)
    assert require_networks(model, wanted) == model


def test_a_run_folder_stays_with_the_commits_it_began_with(tmp_path: Path, cache: FileCache) -> None:
    cached(tmp_path / "hub", "someone/net")
    wanted = recipe({"kind": "canny", "model": "someone/net"})
    model = resolve_guided(wanted, tmp_path, cache)
    other = "cd" * 20
    kept = with_revisions(model, wanted, {"someone/net": other})
    assert kept.networks[0].identity == f"someone/net@{other}"
    assert with_revisions(model, wanted, {}) == model


# --- what is refused


REFUSED = [
    ({"kind": "cany", "model": "n"}, r"controls\[0\].kind"),
    ({"kind": "canny"}, r"controls\[0\].model: this key is missing"),
    ({"kind": "canny", "model": "n", "wieght": 1}, "wieght: unknown key. Did you mean 'weight'"),
    ({"kind": "canny", "model": "n", "weight": 2.5}, r"controls\[0\].weight"),
    ({"kind": "depth", "model": "n"}, "'depth' needs an estimator"),
    ({"kind": "segmentation", "model": "n"}, "'segmentation' needs an estimator"),
    ({"kind": "canny", "model": "n", "estimator": "e"}, "'canny' takes no estimator"),
    ({"kind": "own", "model": "n"}, "'own' needs a folder"),
    ({"kind": "depth", "model": "n", "estimator": "e", "folder": "f"}, "not both"),
]


@pytest.mark.parametrize(("control", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_wrong_control_is_an_error_with_its_line(tmp_path: Path, control: dict[str, Any], words: str) -> None:
    text = "dataset: d.yaml\noutput: out\nconditions: [fog]\ncontrols:\n  - " + yaml.safe_dump(
        control, default_flow_style=True
    )
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(put(tmp_path / "r.yaml", text))
    assert "r.yaml:5" in caught.value.message
    assert caught.value.hint


def test_the_editor_without_controls_is_an_error(tmp_path: Path, cache: FileCache) -> None:
    with pytest.raises(UsageError, match="editor 'controlnet' needs controls"):
        guided(recipe(editor="controlnet", model="sd15"), tmp_path, cache)


@pytest.mark.parametrize("name", ["pocket", "instruct-pix2pix"])
def test_controls_of_a_model_that_none_guides_are_an_error(name: str, tmp_path: Path, cache: FileCache) -> None:
    with pytest.raises(UsageError, match=f"model '{name}' is edited with 'instruct'") as caught:
        guided(recipe(EDGES, editor=None, model=name), tmp_path, cache)
    assert "sd15" in str(caught.value.hint)


def test_networks_that_are_not_where_the_recipe_says(tmp_path: Path, cache: FileCache) -> None:
    for name in ("./nowhere", "nowhere", "~nobody/nowhere"):
        with pytest.raises(UsageError, match=r"ControlNet '.*nowhere'.*does not exist"):
            resolve_weights(name, "controlnet", tmp_path, cache)
    put(tmp_path / "pickled/config.json", "{}")
    put(tmp_path / "pickled/diffusion_pytorch_model.bin", "x")
    with pytest.raises(UsageError, match=r"has no config\.json with \.safetensors") as caught:
        resolve_weights("pickled", "depth", tmp_path, cache)
    assert "pickled files" in str(caught.value.hint)


def test_union_controlnets_for_all_or_for_none(tmp_path: Path, cache: FileCache) -> None:
    network(tmp_path / "union", "task_embedding")
    with pytest.raises(UsageError, match="'union' is a Union ControlNet, others are not"):
        guided(recipe(EDGES, {"kind": "softedge", "model": "union"}), tmp_path, cache)
    (tmp_path / "maps").mkdir()
    with pytest.raises(UsageError, match="must know what a map shows"):
        guided(recipe({"kind": "own", "model": "union", "folder": "maps"}), tmp_path, cache)


# --- ids


def ids(wanted: Recipe, model: Model, *sources: Any) -> list[str]:
    return [item.job.id for item in planned(wanted, model, *sources).items]


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
        return settings(controls=(Guide("depth", "m", 1.0, estimator, folder),)).digest

    assert digest("here") == digest("there") != digest(None)
    assert settings(controls=None).digest == settings().digest


# --- edges at night


def test_edges_at_night_and_in_snow_are_warned_of(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    network(tmp_path / "net")
    network(tmp_path / "depth")
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    conditions = ["night", "fog", "heavy-snow", {"snow": {"controls": [depth]}}, {"name": "mine", "prompt": "at night"}]
    path = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", editor="img2img", conditions=conditions, controls=[EDGES]
    )
    facts = overview(load_recipe(path))
    assert [line.partition(":")[0] for line in facts["controls"]] == ["night", "heavy-snow", "mine"]
    assert "use depth and segmentation" in overview_text(facts)
    assert overview(load_recipe(path, ["controls=[]"]))["controls"] == []
    plain = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", editor="img2img", controls=[EDGES])
    talk: list[str] = []
    make(plain, GuidedEditor(), talk=talk.append)
    assert sum("warning: night: canny maps" in line for line in talk) == 1


# --- a run with a fake editor


class GuidedEditor(FakeEditor):
    """Remembers the maps it got, with the job and the place of each."""

    def __init__(self) -> None:
        super().__init__()
        self.controls: list[tuple[str, Sequence[np.ndarray]]] = []
        self.views: list[View] = []

    def begin(self, asked: Asked) -> None:
        self.views += asked.views or ()
        for job, image, maps in zip(asked.jobs, asked.images, asked.controls or [()] * len(asked.jobs), strict=True):
            assert all(m.shape == image.shape for m in maps)
            self.controls.append((job.id, maps))

    def of(self, job_id: str) -> Sequence[np.ndarray]:
        (found,) = [maps for key, maps in self.controls if key == job_id]
        return found


def guided_recipe(tmp_path: Path, *controls: dict[str, Any], **fields: Any) -> Path:
    network(tmp_path / "net")
    data = tmp_path / "data/data.yaml"
    if not data.is_file():
        make_dataset(tmp_path / "data")
    given = {"editor": "img2img", "conditions": ["fog"], "controls": list(controls), **fields}
    return write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", **given)


def test_a_run_hands_each_picture_its_maps(tmp_path: Path) -> None:
    path = guided_recipe(tmp_path, EDGES, {**EDGES, "kind": "softedge", "weight": 0.5}, conditions=["fog", "rain"])
    summary, editor = make(path, GuidedEditor())
    assert summary.accepted + sum(summary.rejected.values()) == 8
    for item in prepare(load_recipe(path)).plan.items:
        first, second = editor.of(item.job.id)
        assert np.array_equal(first[..., 0], canny(decode(Path(item.source.path).read_bytes())))
        assert not np.array_equal(first, second)


def test_tiles_are_cut_from_the_map_of_the_whole(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(1, 1), size=(160, 96))
    path = guided_recipe(tmp_path, EDGES, resolution={"mode": "tile", "long_side": 64})
    _, editor = make(path, GuidedEditor())
    (item,) = prepare(load_recipe(path)).plan.items
    whole = canny(decode(Path(item.source.path).read_bytes()))
    assert len({(view.left, view.top) for view in editor.views}) == 6
    for (_, (found,)), view in zip(editor.controls, editor.views, strict=True):
        height, width = found.shape[:2]
        wanted = whole[view.top : view.top + height, view.left : view.left + width]
        assert np.array_equal(found[..., 0], wanted)


def maps_for(tmp_path: Path, folder: str = "maps", size: tuple[int, int] = (64, 48), names: Any = range(4)) -> None:
    for i in names:
        save(tmp_path / folder / "train" / f"{i:02}.png", photo(50 + i, size))


OWN = {"kind": "depth", "model": "net", "folder": "maps"}


def test_maps_of_the_users_own(tmp_path: Path) -> None:
    maps_for(tmp_path)
    path = guided_recipe(tmp_path, OWN)
    summary, editor = make(path, GuidedEditor())
    assert summary.not_edited == {}
    for item in prepare(load_recipe(path)).plan.items:
        (found,) = editor.of(item.job.id)
        assert np.array_equal(found, photo(50 + int(item.source.name)))


def test_an_own_map_that_changes_is_another_job_and_no_other_ones(tmp_path: Path) -> None:
    maps_for(tmp_path)
    path = guided_recipe(tmp_path, OWN)
    _, first = make(path, GuidedEditor())
    save(tmp_path / "maps/train/02.png", photo(77))
    _, second = make(path, GuidedEditor())
    assert len(second.made) == 1
    assert second.made[0] not in first.made
    (tmp_path / "maps").rename(tmp_path / "moved")
    moved = guided_recipe(tmp_path, {**OWN, "folder": "moved"})
    assert make(moved, GuidedEditor())[1].made == []


def test_an_own_map_that_changes_while_the_run_goes_on_is_no_image(tmp_path: Path) -> None:
    maps_for(tmp_path)
    loaded = load_recipe(guided_recipe(tmp_path, OWN))
    editor = GuidedEditor()

    def worker() -> Any:  # asked for when all is planned
        save(tmp_path / "maps/train/02.png", photo(77))
        (tmp_path / "maps/train/03.png").unlink()
        return fake_worker(editor)

    summary = run(loaded, make_worker=worker)
    # What was planned with the old maps failed; the export says what the maps are now.
    assert (summary.made_now, summary.planned, summary.pending, summary.exit_code) == (2, 3, 1, 4)
    assert summary.not_edited == {"control map": 1}
    records = (tmp_path / "out/records.jsonl").read_text("utf-8")
    assert "02.png changed while the run was going on" in records
    save(tmp_path / "maps/train/03.png", photo(53))
    assert make(tmp_path / "r.yaml", editor)[0].pending == 0


def test_maps_may_lie_beside_each_other_without_splits(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "maps" / f"{i:02}.jpg", photo(i))
    assert len(make(guided_recipe(tmp_path, OWN), GuidedEditor())[1].made) == 4


def test_a_source_without_a_fitting_map_is_carried_over_and_counted(tmp_path: Path) -> None:
    maps_for(tmp_path, names=range(2))
    save(tmp_path / "maps/train/02.png", photo(1, (64, 64)))
    path = guided_recipe(tmp_path, OWN)
    facts = overview(load_recipe(path))["not_edited"]["control map"]
    assert facts["count"] == 2
    assert "02.png is 64×64, of another aspect than 64×48" in facts["examples"][0]
    assert "train/03: maps has none of it" in facts["examples"][1]
    summary, editor = make(path, GuidedEditor())
    assert len(editor.made) == 2
    assert summary.not_edited == {"control map": 2}


@pytest.mark.parametrize("size", [(128, 96), (32, 24), (640, 479)])
def test_a_map_of_another_size_and_the_same_aspect_fits(tmp_path: Path, size: tuple[int, int]) -> None:
    maps_for(tmp_path, size=size)
    assert len(make(guided_recipe(tmp_path, OWN), GuidedEditor())[1].made) == 4


def test_a_folder_that_is_not_there_or_has_no_map_is_an_error(tmp_path: Path) -> None:
    path = guided_recipe(tmp_path, OWN)
    with pytest.raises(UsageError, match="there is no folder") as caught:
        prepare(load_recipe(path))
    assert caught.value.hint
    (tmp_path / "maps").mkdir()
    with pytest.raises(UsageError, match="has no map for any source") as caught:
        prepare(load_recipe(path))
    assert "maps/train/00.png" in str(caught.value.hint)


def test_the_copy_in_the_run_folder_means_the_same(tmp_path: Path) -> None:
    maps_for(tmp_path)
    network(tmp_path / "depth")
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    path = guided_recipe(tmp_path, OWN, conditions=["fog", {"rain": {"controls": [depth]}}, {"dust": {"controls": []}}])
    written = prepare(load_recipe(path)).plan
    # the estimator's files are empty: only plan with it
    loaded = load_recipe(path)
    (tmp_path / "out").mkdir()
    put(tmp_path / "out/recipe.yaml", loaded.to_yaml(tmp_path / "out"))
    again = prepare(load_recipe(tmp_path / "out")).plan
    assert [i.job.id for i in again.items] == [i.job.id for i in written.items]


def test_a_finished_run_of_controls_does_nothing_again(tmp_path: Path) -> None:
    path = guided_recipe(tmp_path, EDGES)
    make(path, GuidedEditor())
    _, again = make(path, GuidedEditor())
    assert again.made == []
    assert status(load_recipe(tmp_path / "out")).pending == 0


ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/controlnet.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_recipes_of_the_docs_plan(text: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "datasets/street")
    maps_for(tmp_path, "maps/lidar-depth")
    facts = overview(load_recipe(put(tmp_path / "configs/r.yaml", text)))
    assert facts["images"] > 0
    assert facts["controls"] == []


def test_the_schema_describes_controls() -> None:
    schema = recipe_schema()
    assert set(schema["$defs"]["Control"]["properties"]) == {"kind", "model", "weight", "estimator", "folder"}
