"""The pool that the denoiser's batches are drawn from: crops of several sides, the oldest forgotten, lights looked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.pocket import pairs
from scripts.pocket.maps import MAP_NAMES, make_maps
from scripts.pocket.model import LATENT_CHANNELS, build_vae
from scripts.pocket.pairs import SEEN, SEEN_PX, PairPool
from scripts.pocket.photos import Photo, random_crop

PHASES = ((0.0, (64,)), (0.5, (64, 160)))


def street_pool(**more: frozenset[str]) -> PairPool:
    """Of one street of 200 × 160 px, and an autoencoder that was trained for no time."""
    pixels = torch.full((3, 160, 200), 120, dtype=torch.uint8)
    pixels[:, :70] = torch.tensor([150, 190, 230], dtype=torch.uint8)[:, None, None]
    maps = (make_maps(pixels.float() / 255) * 255).to(torch.uint8)
    return PairPool([Photo("street", "", pixels)], {"street": maps}, build_vae(), PHASES, limit=12, **more)


@pytest.fixture
def pool() -> PairPool:
    return street_pool()


def test_only_the_conditions_that_are_taught_are_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = street_pool(only=frozenset({"rain"}))
    painted = []
    monkeypatch.setattr(pairs, "render", lambda name, rgb, *_: (painted.append(name), (rgb, torch.zeros(1, 16, 16)))[1])
    pool.limit = 60
    pool.grow_crops(0.0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        pool.add(rng)
    assert set(painted) == {"rain", "rain/wet", "same"}
    drawn = {pair.condition for pair in pool.pairs[64]}
    assert len(drawn) > 5, "the others are drawn, too, and left to what they are to stay like"
    assert {name for name in drawn if not pool.kept(name)} == {"rain", "rain/wet"}
    assert not any(map(street_pool().kept, drawn)), "without a list, all are taught"


def test_a_batch_is_of_one_side_and_about_one_area(pool: PairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MIDDLE", 96)
    monkeypatch.setattr(pairs, "LARGE", 128)
    rng = np.random.default_rng(0)
    assert pool.grow_crops(0.0)
    pool.add(rng)
    assert list(pool.pairs) == [64]
    assert pool.grow_crops(0.5), "another phase: the pool begins anew"
    assert len(pool) == 0
    assert not pool.grow_crops(0.9)
    while not all(pool.pairs.values()):
        pool.add(rng)
    sizes = {}
    for _ in range(12):
        batch = pool.batch(16, rng)
        (cells,) = {pair.source.shape[-1] for pair in batch}
        sizes[cells * 4] = len(batch)
    assert sizes == {64: 36, 160: 10}


def test_the_oldest_pairs_are_forgotten(pool: PairPool) -> None:
    rng = np.random.default_rng(0)
    pool.grow_crops(0.0)
    pool.add(rng)
    (oldest, *_) = pool.pairs[64]
    while len(pool) < 12:
        pool.add(rng)
    assert any(pair is oldest for pair in pool.pairs[64])
    pool.add(rng)
    assert len(pool) == 12
    assert not any(pair is oldest for pair in pool.pairs[64])
    assert oldest.source.shape == oldest.target.shape == (LATENT_CHANNELS, 16, 16)
    assert oldest.maps.shape == (len(SEEN), 64 // SEEN_PX, 64 // SEEN_PX)


def test_a_crop_round_a_pixel_shows_it() -> None:
    rng = np.random.default_rng(0)
    for spot in ((0, 0), (59, 99), (30, 50)):
        planes = torch.zeros(1, 60, 100, dtype=torch.uint8)
        planes[0, spot[0], spot[1]] = 255
        assert all(random_crop(planes, 48, (0.5, 3), rng, spot).max() > 0.1 for _ in range(20))


def test_fresh_crops_show_lights_of_each_kind(pool: PairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "LOOKS", ((64, 40),))
    monkeypatch.setattr(pairs, "LOOKED_AT", 1.0)
    (photo,) = pool.planes
    for kind, column in (("heads", 20), ("windows", 180)):
        photo[3 + MAP_NAMES.index(kind), 60:64, column : column + 4] = 255
        pool.with_light[kind] = [0]
    pictures, shown = pool.scenes(np.random.default_rng(0))
    assert pictures.shape == (40, 3, 64, 64)
    assert shown.shape == (40, len(SEEN), 64 // SEEN_PX, 64 // SEEN_PX)
    with_light = dict(zip(SEEN, (shown.amax((2, 3)) > 0.5).sum(0).tolist(), strict=True))
    assert with_light["heads"] > 10
    assert with_light["windows"] > 10
    assert with_light["heads"] + with_light["windows"] > 30, "the others show the rim of one"
    assert with_light["tails"] == 0


def test_crops_for_night_are_where_a_light_is(pool: PairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SHARES", {"night": 1})
    monkeypatch.setattr(pairs, "LOOKED_AT", 1.0)
    monkeypatch.setattr(pairs, "SCALES", (1.0, 1.0))
    pool.planes[0][3 + MAP_NAMES.index("tails"), 100:104, 190:194] = 255  # a random crop of 64 of 160 px rarely has it
    pool.with_light["tails"] = [0]
    pool.grow_crops(0.0)
    rng = np.random.default_rng(0)
    for _ in range(8):
        pool.add(rng)
    assert all(pair.maps[SEEN.index("tails")].max() > 0.2 for pair in pool.pairs[64])
