"""What the renderer paints, on a street of a few pixels."""

from __future__ import annotations

import pytest
import torch

from scripts.pocket.maps import MAP_NAMES
from scripts.pocket.model import LATENT_CHANNELS
from scripts.pocket.pairs import room_for_lamps
from scripts.pocket.render import STANDING, render


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


def test_a_drop_on_the_lens_hides_what_is_behind_it_and_has_the_light_of_the_sky_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scripts.pocket.render.streaks", lambda scene, _s: torch.zeros_like(scene.light))
    crop = street(0.1)
    noise = torch.zeros(LATENT_CHANNELS, 16, 16)
    noise[0, 5, 5] = 3.5  # of a cell whose middle is at 21.5 px
    with_drop, without = (render("rain", crop[:3], crop[3:], 0.65, n)[0] for n in (noise, torch.zeros_like(noise)))
    change = (with_drop - without)[:, :40]
    changed = change.abs().amax(0) > 0.02
    rows, columns = changed.nonzero().T
    assert 13 <= rows.min() <= rows.max() < 31
    assert 13 <= columns.min() <= columns.max() < 31
    upper, lower = change[:, 17:19, 20:24].mean(), change[:, 23:25, 20:24].mean()
    assert upper < -0.02
    assert lower > upper + 0.05


def test_what_is_taken_for_ground_stays_readable_under_snow() -> None:
    crop = street(0.1)
    crop[:3, 44:56, 24:40] = 0.12
    snow = render("snow/lying", crop[:3], crop[3:], 0.65, torch.zeros(LATENT_CHANNELS, 16, 16))[0]
    ground, thing = snow[:, 58:62].mean(), snow[:, 46:54, 28:36].mean()
    assert ground > 0.6, "white"
    assert thing < 0.7 * ground
