"""What may happen between a hub and this machine, against the real huggingface_hub: each is one error, or mended."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffgen.commands.pull import pull
from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.models import hub
from diffgen.models.find import resolve_model
from diffgen.models.loras import require_lora, resolve_loras
from diffgen.models.model import is_on_disk, local_folder, require_on_disk
from diffgen.models.networks import resolve_network
from diffgen.models.resolve import require_networks, resolve_recipe_model, to_keep
from tests.fakes import make_dataset, put, write_recipe
from tests.fakes_controls import ids, network, recipe
from tests.fakes_hub import write_model
from tests.hub.standin import TOKEN, StandIn

ID = "stabilityai/sd-turbo"
BIG = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A repository with a U-Net of 3 MB."""
    folder = write_model(tmp_path / "files")
    save_file({"w": np.arange(750_000, dtype=np.float32)}, folder / BIG)
    return folder


def changed(files: Path, to: str) -> Path:
    copy = Path(shutil.copytree(files, files.with_name(to)))
    save_file({"w": np.full(9, hash(to) % 97, np.float32)}, copy / BIG)
    return copy


def turbo(cache: FileCache, spec: Any = "sd-turbo") -> Any:
    return resolve_model(spec, None, Path(), cache)


def test_a_run_fetches_and_pins_and_knows_it_afterwards(
    online: StandIn, files: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = online.publish(ID, files)
    model = require_on_disk(turbo(cache))
    assert model.identity == f"{ID}@{commit}"
    asked = len(online.asked)
    assert require_on_disk(turbo(cache)) == model
    assert len(online.asked) == asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert turbo(cache) == model


def test_a_broken_transfer_goes_on_where_it_broke(online: StandIn, files: Path, cache: FileCache) -> None:
    online.publish(ID, files)
    online.broken = {BIG: [1_000_000, 1_000_000]}
    model = require_on_disk(turbo(cache))
    folder = local_folder(model)
    assert folder is not None
    assert (folder / BIG).read_bytes() == (files / BIG).read_bytes()
    assert online.asked.count(f"GET /cdn{files / BIG}") == 3


def test_an_interrupted_pull_is_no_model_and_the_next_one_fetches_the_rest(
    online: StandIn, files: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish(ID, files)
    monkeypatch.setattr("time.sleep", lambda _: None)
    online.broken = {BIG: [400_000] * 99}
    with pytest.raises(DiffgenError, match="not on this machine") as caught:
        pull("sd-turbo")
    assert "diffgen models pull sd-turbo" in str(caught.value.hint)
    assert not is_on_disk(turbo(cache))
    online.broken, online.sent = {}, []
    pull("sd-turbo")
    assert [name for name in online.sent if name.endswith(".safetensors")] == [Path(BIG).name]
    assert is_on_disk(turbo(cache))


def test_a_moved_main_is_fetched_by_pull_only_and_the_old_commit_stays(
    online: StandIn, files: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = online.publish(ID, files)
    pull("sd-turbo")
    second = online.publish(ID, changed(files, "newer"))
    assert require_on_disk(turbo(cache)).revision == first  # a run takes what is here
    assert pull("sd-turbo")["revision"] == second
    assert turbo(cache).revision == second
    assert is_on_disk(turbo(cache, {"alias": "sd-turbo", "revision": first}))
    third = changed(files, "newest")
    online.publish(ID, third)
    online.broken = {BIG: [10] * 99}
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert pull("sd-turbo")["revision"] == second  # half of the third one displaces nothing
    assert is_on_disk(turbo(cache))


def test_branches_tags_and_commits(online: StandIn, files: Path, cache: FileCache) -> None:
    main = online.publish(ID, files)
    tag = online.publish(ID, changed(files, "tagged"), branch="v2")
    assert require_on_disk(turbo(cache, {"alias": "sd-turbo", "revision": "v2"})).revision == tag
    assert pull("sd-turbo@v2")["revision"] == tag
    assert pull(f"{ID}@{main}")["revision"] == main
    assert not is_on_disk(turbo(cache))  # main is not known by its name yet
    pull("sd-turbo")
    assert is_on_disk(turbo(cache))
    with pytest.raises(DiffgenError, match="has no revision 'v3'"):
        pull("sd-turbo@v3")


def test_half_precision_is_fetched_in_place_of_the_rest(online: StandIn, files: Path, cache: FileCache) -> None:
    save_file({"w": np.zeros(4, np.float16)}, files / "unet/diffusion_pytorch_model.fp16.safetensors")
    online.publish(ID, files)
    folder = local_folder(require_on_disk(turbo(cache)))
    assert folder is not None
    assert [path.name for path in (folder / "unet").glob("*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]


def sharded(files: Path, count: int, lost: int = 0) -> Path:
    (files / BIG).unlink()
    names = [f"diffusion_pytorch_model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    for i, name in enumerate(names, 1):
        if i != lost:
            save_file({f"w{i}": np.full(4, i, np.float32)}, files / "unet" / name)
    index = {"weight_map": {f"w{i}": name for i, name in enumerate(names, 1)}}
    (files / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_a_lost_shard_is_fetched_again(online: StandIn, files: Path, cache: FileCache) -> None:
    online.publish(ID, sharded(files, 3))
    pull("sd-turbo")
    folder = local_folder(turbo(cache))
    assert folder is not None
    (folder / "unet/diffusion_pytorch_model-00002-of-00003.safetensors").resolve().unlink()
    assert not is_on_disk(turbo(cache))
    online.sent = []
    require_on_disk(turbo(cache))
    assert online.sent == ["diffusion_pytorch_model-00002-of-00003.safetensors"]


@pytest.mark.parametrize("lost", ["shard", "index", "weights"])
def test_a_repository_that_lacks_files_says_which(lost: str, online: StandIn, files: Path, cache: FileCache) -> None:
    sharded(files, 3, lost=2 if lost == "shard" else 0)
    if lost != "shard":
        (files / "unet/diffusion_pytorch_model.safetensors.index.json").unlink()
    if lost == "weights":
        for file in (files / "unet").glob("*.safetensors"):
            file.rename(file.with_suffix(".bin"))
    online.publish(ID, files)
    file = {"shard": "-00002-of-00003.safetensors", "index": ".safetensors.index.json", "weights": ".safetensors"}[lost]
    with pytest.raises(DiffgenError, match=f"the hub has no unet/diffusion_pytorch_model{file}") as caught:
        require_on_disk(turbo(cache))
    assert "pickled weights" in str(caught.value.hint)
    assert not is_on_disk(turbo(cache))


def test_an_unknown_id_is_described_by_its_configs(
    online: StandIn, files: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = online.publish("someone/winter", files)
    model = turbo(cache, "someone/winter")
    assert (model.editor, model.native, model.revision) == ("img2img", 512, commit)
    assert not is_on_disk(model)
    assert not any(name.endswith(".safetensors") for name in online.sent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert turbo(cache, "someone/winter") == model


@pytest.mark.parametrize(
    ("facts", "token", "words", "hint"),
    [
        ({"gated": True}, None, "accept its licence", f"https://huggingface.co/{ID}, then `hf auth login`"),
        ({"gated": True}, "hf_other", "accept its licence", "diffgen models pull sd-turbo"),
        ({"private": True}, None, "not on the hub, or is private", "hf auth login"),
        (None, None, "not on the hub, or is private", "check the id"),
    ],
)
def test_repositories_that_one_may_not_read(
    facts: Any, token: str | None, words: str, hint: str, online: StandIn, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if facts is not None:
        online.publish(ID, files, **facts)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DiffgenError, match=words) as caught:
        pull("sd-turbo")
    assert hint in str(caught.value.hint)
    assert "\n" not in caught.value.message
    if facts is not None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert pull("sd-turbo")["revision"]


def test_a_hub_that_is_down_or_not_there(online: StandIn, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    online.publish(ID, files)
    online.down = True
    with pytest.raises(DiffgenError, match="the hub answered with 503") as caught:
        pull("sd-turbo")
    assert "diffgen models pull sd-turbo" in str(caught.value.hint)
    online.down = False
    commit = pull("sd-turbo")["revision"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert pull("sd-turbo")["revision"] == commit  # nobody can be asked for a newer one
    with pytest.raises(DiffgenError, match="the hub cannot be reached"):
        pull("sdxl-turbo")


def test_a_full_disk_is_not_called_a_lost_connection(
    online: StandIn, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish(ID, files)
    (tmp_path / "hub").write_text("not a folder")
    with pytest.raises(DiffgenError, match=r"cannot be stored in .*hub: ") as caught:
        pull("sd-turbo")
    assert "HF_HUB_CACHE" in str(caught.value.hint)


def test_offline_is_one_error_with_the_command(cache: FileCache) -> None:
    with pytest.raises(DiffgenError, match="HF_HUB_OFFLINE is set") as caught:
        require_on_disk(turbo(cache))
    assert str(caught.value.hint).endswith("diffgen models pull sd-turbo")
    with pytest.raises(DiffgenError, match="'nonsense' is not known"):
        pull("nonsense")


# All that a repository of a network may hold.
NETWORK = (
    "config.json", "preprocessor_config.json", "README.md", "diffusion_pytorch_model.bin", "sub/config.json",
    "merges.txt", "other.safetensors",
)  # fmt: skip


def test_networks_are_fetched_once_pinned_and_known_offline(
    online: StandIn, tmp_path: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = network(tmp_path / "net")
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", folder / "diffusion_pytorch_model.fp16.safetensors")
    (folder / "sub").mkdir()
    for name in NETWORK:
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps({"of": name}))  # the cache keeps one copy of equal files
    commit = online.publish("someone/net", folder)
    wanted = recipe({"kind": "canny", "model": "someone/net"})
    before = resolve_recipe_model(wanted, tmp_path, cache)
    model = require_networks(before, wanted)
    weights = "diffusion_pytorch_model.fp16.safetensors"
    assert sorted(online.sent) == sorted(["config.json", "preprocessor_config.json", "merges.txt", weights])
    assert model.networks[0].identity == f"someone/net@{commit}"
    assert to_keep(model)["revisions"]["someone/net"] == commit
    assert ids(wanted, model) != ids(wanted, before)
    assert require_networks(model, wanted) == model
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_network("someone/net", "controlnet", tmp_path, cache) == model.networks[0]
    assert pull("someone/net")["revision"] == commit


def test_pull_fetches_all_that_a_recipe_needs(
    online: StandIn, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish(ID, files)
    online.publish("someone/net", network(tmp_path / "net"))
    lora = tmp_path / "lora"
    lora.mkdir()
    save_file({"unet.lora_up.weight": np.zeros(2, np.float32)}, lora / "w.safetensors")
    online.publish("someone/lora", lora)
    path = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", editor=None, model="sd-turbo",
        controls=[{"kind": "canny", "model": "someone/net"}], loras=[{"hub": "someone/lora", "weight_name": "w.safetensors"}],
    )  # fmt: skip
    pulled = pull(str(path))
    assert set(pulled["revisions"]) == {ID, "someone/net", "someone/lora/w.safetensors"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(online.asked)
    assert pull(str(path)) == pulled
    with FileCache() as cache:
        assert resolve_loras([{"hub": "someone/lora", "weight_name": "w.safetensors", "weight": 1.0}], tmp_path, cache)
    assert len(online.asked) == asked


def test_a_recipe_is_pulled_at_the_commit_that_its_run_folder_keeps(
    online: StandIn, files: Path, tmp_path: Path
) -> None:
    kept = online.publish(ID, files)
    newer = online.publish(ID, changed(files, "newer"))
    path = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", editor=None, model="sd-turbo"
    )
    put(tmp_path / "out/run.json", json.dumps({"format": 1, "environments": {}, "revisions": {ID: kept}}))
    assert pull(str(path))["revision"] == kept
    assert hub.snapshot(ID, newer) is None


def test_a_transfer_that_breaks_off_in_xet(online: StandIn, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real hub sends large files by hf_xet, which raises a plain RuntimeError."""
    import huggingface_hub

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("Data processing error: CAS service error: connection reset")

    online.publish(ID, files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(DiffgenError, match="its download broke off") as caught:
        pull("sd-turbo")
    assert "diffgen models pull sd-turbo" in str(caught.value.hint)


def test_a_repository_of_the_other_kind_is_refused_before_its_weights_are_fetched(
    online: StandIn, files: Path, tmp_path: Path, cache: FileCache
) -> None:
    online.publish("someone/model", files)
    online.publish("someone/net", network(tmp_path / "net"))
    wanted = recipe({"kind": "canny", "model": "someone/model"})
    with pytest.raises(DiffgenError, match=r"ControlNet 'someone/model' has no config\.json"):
        require_networks(resolve_recipe_model(wanted, tmp_path, cache), wanted)
    with pytest.raises(DiffgenError, match=r"model 'someone/net' has no model_index\.json"):
        turbo(cache, "someone/net")
    put(tmp_path / "odd/README.md", "weights in one file")
    online.publish("someone/odd", tmp_path / "odd")
    wanted = recipe({"kind": "canny", "model": "someone/odd"})
    with pytest.raises(DiffgenError, match=r"has no config\.json") as caught:
        require_networks(resolve_recipe_model(wanted, tmp_path, cache), wanted)
    assert "with a network" in str(caught.value.hint)
    assert not any(name.endswith(".safetensors") for name in online.sent)


@pytest.mark.parametrize("name", ["models/klein--base", "a/b..c", "a/b.git"])
def test_an_id_that_the_hub_does_not_allow(name: str, online: StandIn, cache: FileCache) -> None:
    with pytest.raises(UsageError) as caught:
        turbo(cache, name)
    assert "OWNER/NAME" in str(caught.value.hint)


def test_configs_that_were_only_half_fetched_are_fetched_again(online: StandIn, files: Path, cache: FileCache) -> None:
    commit = online.publish("someone/winter", files)
    put(hub.snapshot_folder("someone/winter", commit) / "model_index.json", (files / "model_index.json").read_text())
    assert turbo(cache, {"hub": "someone/winter", "revision": commit}).native == 512


def test_a_lora_is_fetched_into_a_cache_behind_a_link(
    online: StandIn, tmp_path: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "link"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "link"))
    lora = tmp_path / "lora"
    lora.mkdir()
    save_file({"unet.lora_up.weight": np.zeros(2, np.float32)}, lora / "w.safetensors")
    commit = online.publish("someone/lora", lora)
    (absent,) = resolve_loras([{"hub": "someone/lora", "weight_name": "w.safetensors"}], tmp_path, cache)
    here = require_lora(absent, cache)
    assert (here.revision, len(here.identity)) == (commit, 64)


def test_the_ref_is_what_huggingface_hub_writes(online: StandIn, files: Path, tmp_path: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    commit = online.publish(ID, files)
    pull("sd-turbo")
    assert hub.cached_commit(ID, None) == commit
    found = try_to_load_from_cache(ID, "model_index.json", revision="main", cache_dir=tmp_path / "hub")
    assert isinstance(found, str)


def test_pulling_says_where_it_is(online: StandIn, files: Path, cli: Callable[..., Any]) -> None:
    commit = online.publish(ID, files)
    answer = cli("models", "pull", "sd-turbo", "--json")
    assert "Fetching" in answer.err
    assert json.loads(answer.out) == {"name": "sd-turbo", "place": ID, "revision": commit}
    again = cli("models", "pull", "sd-turbo")
    assert again.out == f"sd-turbo is on this machine: {ID}@{commit}\n"
    assert "Fetching" not in again.err
