"""The networks beside a model, of controls and CLIP: by their content, by their commit, fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.networks import at_revision, resolve_network
from diffgen.models.resolve import as_kept, require_networks, resolve_recipe_model
from tests.fakes import put
from tests.fakes_controls import COMMIT, EDGES, cached, guided, network, recipe


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
    found = [resolve_network(name, "controlnet", tmp_path, cache).identity for name in names]
    assert found[0] == found[1] != found[2]


def test_hub_networks_by_their_commit(tmp_path: Path, cache: FileCache) -> None:
    unknown = resolve_network("someone/net", "controlnet", tmp_path, cache)
    assert (unknown.identity, unknown.folder) == ("someone/net@unpinned", None)
    cached(tmp_path / "hub", "someone/net")
    known = resolve_network("someone/net", "controlnet", tmp_path, cache)
    assert known.identity == f"someone/net@{COMMIT}"
    assert known.folder is not None
    other = "cd" * 20
    assert at_revision(known, other).identity == f"someone/net@{other}"
    pinned = resolve_network(f"someone/net@{COMMIT}", "controlnet", tmp_path, cache)
    assert at_revision(pinned, other) == pinned
    assert pinned.identity == known.identity


def test_a_network_that_is_not_here_is_an_error_with_the_command(tmp_path: Path, cache: FileCache) -> None:
    wanted = recipe({"kind": "canny", "model": "someone/net@v2"})
    model = resolve_recipe_model(wanted, tmp_path, cache)
    with pytest.raises(DiffgenError, match="ControlNet 'someone/net@v2' is not on this machine") as caught:
        require_networks(model, wanted)
    assert "diffgen models pull someone/net@v2" in str(caught.value.hint)


def test_a_run_folder_stays_with_the_commits_it_began_with(tmp_path: Path, cache: FileCache) -> None:
    cached(tmp_path / "hub", "someone/net")
    wanted = recipe({"kind": "canny", "model": "someone/net"})
    model = resolve_recipe_model(wanted, tmp_path, cache)
    other = "cd" * 20
    kept = as_kept(model, wanted, {"revisions": {"someone/net": other}})
    assert kept.networks[0].identity == f"someone/net@{other}"
    assert as_kept(model, wanted, {}) == model


def test_networks_that_are_not_where_the_recipe_says(tmp_path: Path, cache: FileCache) -> None:
    for name in ("./nowhere", "nowhere", "~nobody/nowhere"):
        with pytest.raises(UsageError, match=r"ControlNet '.*nowhere'.*does not exist"):
            resolve_network(name, "controlnet", tmp_path, cache)
    put(tmp_path / "pickled/config.json", "{}")
    put(tmp_path / "pickled/diffusion_pytorch_model.bin", "x")
    with pytest.raises(UsageError, match=r"has no config\.json with \.safetensors") as caught:
        resolve_network("pickled", "depth", tmp_path, cache)
    assert "pickled weights" in str(caught.value.hint)


def test_union_controlnets_for_all_or_for_none(tmp_path: Path, cache: FileCache) -> None:
    network(tmp_path / "union", "task_embedding")
    with pytest.raises(UsageError, match="'union' is a Union ControlNet, but others are not"):
        guided(recipe(EDGES, {"kind": "softedge", "model": "union"}), tmp_path, cache)
    (tmp_path / "maps").mkdir()
    with pytest.raises(UsageError, match="needs to know the kind of map"):
        guided(recipe({"kind": "own", "model": "union", "folder": "maps"}), tmp_path, cache)
