"""The pool that the denoiser's batches are drawn from: crops of several sides, the oldest forgotten, lights looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import pocket_pairs
from pocket_maps import MAP_NAMES, make_maps
from pocket_model import LATENT_CHANNELS, build_vae
from pocket_pairs import SEEN, SEEN_PX, PairPool, room_for_lamps
from pocket_photos import Photo, random_crop
from pocket_render import STANDING, render

PHASES = ((0.0, (64,)), (0.5, (64, 160)))


@pytest.fixture
def pool() -> PairPool:
    """Of one street of 200 × 160 px, and an autoencoder that was trained for no time."""
    pixels = torch.full((3, 160, 200), 120, dtype=torch.uint8)
    pixels[:, :70] = torch.tensor([150, 190, 230], dtype=torch.uint8)[:, None, None]
    maps = (make_maps(pixels.float() / 255) * 255).to(torch.uint8)
    return PairPool([Photo("street", "", pixels)], {"street": maps}, build_vae(), "cpu", PHASES, limit=12)


def test_a_batch_is_of_one_side_and_about_one_area(pool: PairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket_pairs, "MIDDLE", 96)
    monkeypatch.setattr(pocket_pairs, "LARGE", 128)
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
        assert all(random_crop(planes, 48, 0.5, 3, rng, spot).max() > 0.1 for _ in range(20))


def test_fresh_crops_show_lights_of_each_kind(pool: PairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket_pairs, "LOOKS", ((64, 40),))
    monkeypatch.setattr(pocket_pairs, "LOOKED_AT", 1.0)
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


def street(depth: float) -> torch.Tensor:
    """A crop (3 + maps, H, W) whose upper half stands `depth` away over ground."""
    rgb, maps = torch.full((3, 64, 64), 0.4), torch.zeros(len(MAP_NAMES), 64, 64)
    named = dict(zip(MAP_NAMES, maps, strict=True))
    named["depth"][:32] = depth
    named["ground"][32:] = 1
    named["rows"][:] = torch.linspace(1, 0, 64)[:, None]
    return torch.cat((rgb, maps))


def test_the_seeds_lamps_have_room_far_away() -> None:
    assert room_for_lamps(street(0.1)) < 0.1 * room_for_lamps(street(0.8))


def test_crops_for_night_are_where_a_light_is(pool: PairPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket_pairs, "SHARES", {"night": 1})
    monkeypatch.setattr(pocket_pairs, "LOOKED_AT", 1.0)
    monkeypatch.setattr(pocket_pairs, "SCALES", (1.0, 1.0))
    pool.planes[0][3 + MAP_NAMES.index("tails"), 100:104, 190:194] = 255  # a random crop of 64 of 160 px rarely has it
    pool.with_light["tails"] = [0]
    pool.grow_crops(0.0)
    rng = np.random.default_rng(0)
    for _ in range(8):
        pool.add(rng)
    assert all(pair.maps[SEEN.index("tails")].max() > 0.2 for pair in pool.pairs[64])


@pytest.mark.parametrize("condition", ["glare", "snow", "dusk", "night"])
def test_what_stands_has_weight_in_every_condition(condition: str) -> None:
    crop = street(0.1)
    _, weight = render(condition, crop[:3], crop[3:], 0.65, torch.zeros(LATENT_CHANNELS, 16, 16))
    assert float(weight[0, 1:7].min()) == pytest.approx(STANDING, abs=0.02)


def test_lamps_keep_to_the_far_end_of_a_street_unless_a_crop_is_too_small_to_show_it() -> None:
    noise = torch.zeros(LATENT_CHANNELS, 16, 16)
    noise[0, 6, 8] = 3.2  # over the horizon
    dark = torch.zeros_like(noise)

    def lamp(depth: float, shows_place: bool) -> float:
        crop = street(depth)
        lit, unlit = (render("night", crop[:3], crop[3:], 0.65, n, shows_place)[0] for n in (noise, dark))
        return float((lit - unlit).max())

    assert lamp(0.8, True) > 0.4
    assert lamp(0.04, True) < 0.05
    assert lamp(0.04, False) > 0.4


def test_windows_are_lit_as_the_noise_says_each_as_a_whole_and_tail_lamps_are_red() -> None:
    crop = street(0.1)
    windows, tails = (crop[3 + MAP_NAMES.index(kind)] for kind in ("windows", "tails"))
    windows[10:20, 4:12] = windows[10:20, 50:58] = 1
    tails[40:44, 30:34] = 1
    noise = torch.zeros(LATENT_CHANNELS, 16, 16)
    noise[1, :, :8], noise[1, :, 8:] = 2, -2
    night, _ = render("night", crop[:3], crop[3:], 0.65, noise)
    lit, dark = night[:, 11:19, 5:11], night[:, 11:19, 51:57]
    assert lit.mean() > dark.mean() + 0.4
    assert lit.std((1, 2)).max() < 0.05
    assert lit[0].mean() > lit[2].mean() + 0.2, "warm"
    red, green, blue = night[:, 41:43, 31:33].mean((1, 2))
    assert red > 0.9
    assert red > max(green, blue) + 0.3
    day, _ = render("overcast", crop[:3], crop[3:], 0.65, noise)
    assert (day[:, 11:19, 5:11] - day[:, 11:19, 51:57]).abs().max() < 0.02
