"""What a camera adds: as much as was asked for, the same each time, and nothing moves."""

from __future__ import annotations

import numpy as np
import pytest

from diffgen.checks.registration import registration
from diffgen.checks.structure import luminance
from diffgen.editing.levers.linear_light import to_light, to_pixels
from diffgen.editing.levers.sensor import exposed
from diffgen.types import Sensor
from tests.fakes import photo

PICTURE = photo(5, (320, 200))
GREY = np.full((120, 160, 3), 100, np.uint8)


def test_light_and_back_is_the_same_picture() -> None:
    every = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)[None]
    assert np.array_equal(to_pixels(to_light(every)), every)
    assert to_pixels(np.array([[[-1.0, 2.0, 0.2140]]], np.float32)).tolist() == [[[0, 255, 127]]]


@pytest.mark.parametrize("size", [(320, 200), (17, 11), (2, 1), (1, 1)])
@pytest.mark.parametrize("name", ["exposure", "noise", "blur", "glare"])
def test_zero_is_nothing_and_the_same_seed_the_same_picture(name: str, size: tuple[int, int]) -> None:
    picture = photo(5, size)
    assert np.array_equal(exposed(picture, Sensor(), 3), picture)
    sensor = Sensor(**{name: (0.0, 0.01)})
    assert np.array_equal(exposed(picture, sensor, 3), exposed(picture, sensor, 3))
    assert exposed(picture, sensor, 3).shape == picture.shape


def test_a_stop_is_half_the_light() -> None:
    made = to_light(exposed(GREY, Sensor(exposure=(-1, -1)), 0)).mean()
    assert made == pytest.approx(to_light(GREY).mean() / 2, rel=0.02)


def test_values_are_drawn_from_all_of_the_range() -> None:
    stops = [
        np.log2(to_light(exposed(GREY, Sensor(exposure=(-3, 0)), seed)).mean() / to_light(GREY).mean())
        for seed in range(60)
    ]
    assert -3.1 <= min(stops) < -2.7
    assert -0.3 < max(stops) <= 0.05


def test_noise_is_that_of_a_sensor() -> None:
    """Its variance rises with the light."""

    def deviation(level: int) -> float:
        made = to_light(exposed(np.full((200, 200, 3), level, np.uint8), Sensor(noise=(0.05, 0.05)), 1))
        return float(made.std())

    light = float(to_light(np.uint8([[[150]]]))[0, 0, 0])
    assert deviation(150) == pytest.approx(0.05 * np.sqrt(light), rel=0.1)
    assert 1.6 < deviation(150) / deviation(80) < 2.4  # a ratio of light of 3.8
    made = [exposed(GREY, Sensor(noise=(0.05, 0.05)), seed) for seed in (1, 2)]
    assert not np.array_equal(*made)


@pytest.mark.parametrize("sensor", [Sensor(blur=(0.01, 0.01)), Sensor(glare=(0.3, 0.3))])
def test_blur_and_glare_keep_the_light(sensor: Sensor) -> None:
    for seed in range(4):
        assert to_light(exposed(PICTURE, sensor, seed)).mean() == pytest.approx(to_light(PICTURE).mean(), rel=0.03)


def test_glare_moves_nothing() -> None:
    made = exposed(PICTURE, Sensor(exposure=(-1, 0), noise=(0, 0.02), glare=(0.3, 0.3)), 0)
    assert registration(luminance(PICTURE), luminance(made))[0] < 0.3


@pytest.mark.parametrize("seed", range(5))
def test_a_point_becomes_a_line_around_itself_of_the_asked_length(seed: int) -> None:
    picture = np.zeros((101, 401, 3), np.uint8)
    picture[50, 200] = 255
    light = to_light(exposed(picture, Sensor(blur=(0.01, 0.01)), seed))[..., 0]
    y, x = np.nonzero(light > 0.02)
    assert 4.0 <= np.hypot(np.ptp(x), np.ptp(y)) <= 6.0  # 4 px, and what interpolation adds
    assert light.sum() == pytest.approx(1.0, abs=0.1)
    assert np.average(np.indices(light.shape), axis=(1, 2), weights=light).tolist() == pytest.approx(
        [50, 200], abs=0.05
    )


def test_glare_reaches_the_dark() -> None:
    picture = np.zeros((200, 320, 3), np.uint8)
    picture[80:120, 140:180] = 255
    made = exposed(picture, Sensor(glare=(0.3, 0.3)), 0)
    assert made[100, 190, 0] > made[100, 300, 0] > 0
