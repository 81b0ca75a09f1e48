"""Lamps stand where the labels say, only add light, and leave all else as it was."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.dataset.labels import Shape
from diffgen.editing.levers.glow import Lamp, light_of
from diffgen.editing.levers.lights import lights_for, with_lights
from diffgen.editing.levers.linear_light import to_light, to_pixels
from diffgen.types import Lights

CAR, MOTOR, SIGNAL, PERSON = range(4)
ALL = Lights(1.0, 1.0, (CAR,), (MOTOR,), (SIGNAL,))
SIZE = (180, 320)  # height, width
MIDDLE = Shape(CAR, (0.4, 0.4, 0.55, 0.6))  # 48 × 36 pixels, in our lane
LEFT = Shape(CAR, (0.05, 0.5, 0.15, 0.64))  # 32 × 25 pixels, far to the left
BOX = st.tuples(*[st.floats(-0.01, 1.01)] * 4).map(lambda b: (*np.minimum(b[:2], b[2:]), *np.maximum(b[:2], b[2:])))
SHAPES = st.lists(st.builds(Shape, st.integers(0, 3), BOX.map(lambda b: tuple(float(v) for v in b))), max_size=6)


def grey(value: int = 90, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def noise(seed: int, size: tuple[int, int] = SIZE, most: int = 255) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, (*size, 3), dtype=np.uint8)


def painted(*rectangles: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> np.ndarray:
    """A grey day with rectangles x0, y0, x1, y1 of a colour."""
    day = grey()
    for (x0, y0, x1, y1), colour in rectangles:
        day[y0:y1, x0:x1] = colour
    return day


def added(day: np.ndarray, shapes: list[Shape], lights: Lights = ALL, seed: int = 0, night: int = 10) -> np.ndarray:
    return with_lights(grey(night, day.shape[:2]), day, shapes, lights, seed).astype(int) - night


def seed_of(shape: Shape, red: bool, day: np.ndarray | None = None) -> int:
    """A seed with which the shape is lit in that colour."""
    for seed in range(200):
        light = added(grey() if day is None else day, [shape], seed=seed).sum((0, 1))
        if light[0] > 0 and (light[0] > 2 * light[2]) == red:
            return seed
    raise AssertionError("never lit so")


@given(SHAPES, st.integers(0, 5), st.tuples(st.integers(1, 90), st.integers(1, 90)), st.randoms())
def test_light_is_only_added_whatever_the_boxes_and_sizes_and_their_order_does_not_matter(
    shapes, seed, size, random
) -> None:
    night, day = noise(1, size, 80), noise(2, size)
    made = with_lights(night, day, shapes, ALL, seed)
    assert made.dtype == np.uint8
    assert (made >= night).all()
    mixed = [*shapes, *shapes[:1]]
    random.shuffle(mixed)
    assert np.array_equal(with_lights(night, day, mixed, ALL, seed), made)


@pytest.mark.parametrize(
    "lights", [replace(ALL, share=0.0), replace(ALL, brightness=0.0), Lights(1.0, 1.0, (), (), ())]
)
def test_nothing_lit_is_nothing_changed(lights: Lights) -> None:
    night = noise(1)
    assert np.array_equal(with_lights(night, noise(2), [MIDDLE, LEFT], lights, 0), night)
    assert np.array_equal(with_lights(night, noise(2), [], ALL, 0), night)
    assert np.array_equal(with_lights(night, noise(2), [Shape(PERSON, MIDDLE.box)], ALL, 0), night)


def test_the_arguments_stay_as_they_are() -> None:
    night, day = noise(1), noise(2)
    before = night.copy(), day.copy()
    assert with_lights(night, day, [MIDDLE], ALL, 0) is not night
    assert with_lights(night, day, [], ALL, 0) is not night
    assert np.array_equal(night, before[0])
    assert np.array_equal(day, before[1])


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="one size"):
        with_lights(grey(), grey(size=(4, 4)), [MIDDLE], ALL, 0)


@pytest.mark.parametrize("brightness", [1.0, 50.0])
def test_far_from_a_lit_vehicle_all_stays_bit_for_bit(brightness: float) -> None:
    small = Shape(CAR, (0.48, 0.45, 0.53, 0.52))  # 16 pixels wide
    night = noise(1, most=60)
    made = with_lights(night, noise(2), [small], replace(ALL, brightness=brightness), 0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    away = np.maximum(np.abs(x + 0.5 - 0.505 * 320) - 8, np.abs(y + 0.5 - 0.485 * 180) - 6.3)
    assert np.array_equal(made[away > 48], night[away > 48])
    assert not np.array_equal(made, night)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_as_many_are_lit_as_the_share_says(share: float) -> None:
    lit = [added(grey(size=(45, 80)), [MIDDLE], replace(ALL, share=share), seed).any() for seed in range(400)]
    assert np.mean(lit) == pytest.approx(share, abs=0.07)


def test_who_is_lit_is_also_lit_at_a_larger_share() -> None:
    lit = [
        [added(grey(size=(45, 80)), [LEFT], replace(ALL, share=share), seed).any() for seed in range(60)]
        for share in (0.3, 0.7, 1.0)
    ]
    assert (np.diff(np.array(lit).astype(int), axis=0) >= 0).all()


def test_parked_ones_at_the_side_and_side_views_stay_dark_more_often() -> None:
    shapes = [MIDDLE, Shape(CAR, (0.9, 0.5, 0.96, 0.58)), Shape(CAR, (0.3, 0.5, 0.7, 0.7))]
    middle, aside, sideways = (
        np.mean([added(grey(size=(45, 80)), [shape], seed=seed).any() for seed in range(200)]) for shape in shapes
    )
    assert middle == 1
    assert aside < 0.7
    assert sideways < 0.6


def test_a_vehicle_ahead_shows_a_red_pair_and_an_oncoming_one_a_white_pair() -> None:
    behind = added(grey(), [MIDDLE])
    top = behind[72:108, 128:176, 0].max(0)  # over the rows of the box
    assert top[3:10].max() > 60
    assert top[-10:-3].max() > 60
    assert top[22:26].max() < 0.7 * top.max()
    assert behind[..., 0].sum() > 3 * behind[..., 2].sum()
    white = added(grey(), [LEFT], seed=seed_of(LEFT, red=False))
    assert white.max() > 240 - 10
    assert white[..., 2].sum() > 0.5 * white[..., 0].sum()


def test_what_stands_in_our_lane_or_to_the_right_never_comes_towards_us() -> None:
    for shape in (MIDDLE, Shape(CAR, (0.7, 0.5, 0.8, 0.64))):
        for seed in range(40):
            light = added(grey(size=(45, 80)), [shape], seed=seed).sum((0, 1))
            assert not light.any() or light[0] > 1.5 * light[2]


def test_red_glass_in_the_daylight_picture_is_where_the_lamps_are() -> None:
    day = painted(
        ((20, 96, 24, 99), (150, 25, 30)), ((42, 96, 46, 99), (150, 25, 30))
    )  # in LEFT, which may be oncoming
    lit = [light for seed in range(30) if (light := added(day, [LEFT], seed=seed)).any()]
    assert lit
    for light in lit:
        assert light[96:99, 20:24, 0].min() > 30
        assert light[96:99, 42:46, 0].min() > 30
        assert light[..., 0].sum() > 2 * light[..., 2].sum()


def test_the_other_of_a_pair_stands_opposite() -> None:
    straight = Shape(CAR, (0.45, 0.4, 0.55, 0.58))  # 32 × 32 pixels from (144, 72)
    light = added(painted(((146, 88, 150, 91), (150, 25, 30))), [straight])
    assert light[88:91, 147:149, 0].min() > 30
    assert light[88:91, 171:173, 0].min() > 30


def test_red_paint_is_no_glass() -> None:
    plain, red = added(grey(), [MIDDLE]), added(painted(((128, 72, 176, 108), (150, 25, 30))), [MIDDLE])
    assert np.array_equal(plain[..., 0].argmax(), red[..., 0].argmax())


def test_a_nearer_box_hides_the_lamp_behind_it() -> None:
    nearer = Shape(PERSON, (0.5, 0.3, 0.6, 0.9))  # over the right half
    light = added(grey(), [MIDDLE, nearer])
    assert light[80:95, 130:140, 0].max() > 60
    assert light[80:95, 166:174, 0].max() < 25
    farther = replace(nearer, box=(0.5, 0.3, 0.6, 0.5))
    assert added(grey(), [MIDDLE, farther])[80:95, 166:174, 0].max() > 60


def test_a_vehicle_that_is_cut_off_shows_only_lamps_that_the_day_shows() -> None:
    assert not any(added(grey(), [Shape(CAR, (0.9, 0.5, 1.0, 0.65))], seed=seed).any() for seed in range(20))


def test_a_motorcycle_has_one_lamp_in_its_middle() -> None:
    motor = Shape(MOTOR, (0.48, 0.4, 0.53, 0.6))
    rows = added(grey(), [motor])[:, :, 0].max(0)
    assert rows.argmax() in range(160, 164)


@pytest.mark.parametrize(
    ("colour", "strongest", "y"), [((255, 40, 40), 0, 0.3), ((40, 230, 170), 1, 0.7), ((255, 190, 20), 0, 0.5)]
)
def test_a_traffic_light_glows_where_and_as_its_lens_does(
    colour: tuple[int, int, int], strongest: int, y: float
) -> None:
    signal = Shape(SIGNAL, (0.5, 0.2, 0.55, 0.4))  # 16 × 36 pixels from (160, 36)
    row = round(36 + 36 * y)
    day = painted(((160, 36, 176, 72), (20, 20, 20)), ((165, row - 3, 171, row + 3), colour))
    light = added(day, [signal])
    assert light[row - 2 : row + 2, 166:170].max(-1).min() > 150
    assert light.sum((0, 1)).argmax() == strongest
    assert light[36:72].max((1, 2)).argmax() in range(row - 36 - 4, row - 36 + 4)
    assert not added(day, [signal], replace(ALL, signals=())).any()


@pytest.mark.parametrize("colour", [(20, 20, 20), (230, 170, 30), (120, 160, 255), (60, 110, 40)])
def test_a_traffic_light_that_shows_no_lens_stays_dark(colour: tuple[int, int, int]) -> None:
    day = painted(((160, 36, 176, 72), colour))
    assert not added(day, [Shape(SIGNAL, (0.5, 0.2, 0.55, 0.4))]).any()


def test_more_brightness_is_more_light() -> None:
    sums = [added(grey(), [MIDDLE], replace(ALL, brightness=b)).sum() for b in (0.3, 1.0, 3.0)]
    assert sums == sorted(sums)
    assert sums[0] < sums[2]


def test_class_names_of_the_datasets_that_people_have() -> None:
    names = [
        "Car",
        "Van",
        "Traffic_Light",
        "motor",
        "person",
        "traffic-light",
        "trafficLight",
        "BUS",
        "bicycle",
        "motor cycle",
    ]
    assert lights_for(names, 0.5, 2.0) == Lights(0.5, 2.0, (0, 1, 7), (3, 9), (2, 5, 6))
    assert hash(lights_for(names, 0.5, 2.0)) == hash(lights_for(names, 0.5, 2.0))
    assert json.loads(json.dumps(asdict(ALL)))["vehicles"] == [CAR]


def test_srgb_there_and_back_is_the_same() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_pixels(to_light(every)), every)


def test_the_glow_takes_its_light_from_the_core() -> None:
    lamp = Lamp(100.0, 100.0, (1.0, 0.5, 0.25), 1.0, 1e4, axes=(6.0, 4.0))
    light = light_of([lamp], 200, 200)
    assert light[..., 0].sum() == pytest.approx(np.pi * 24, rel=0.02)
    assert np.allclose(light * np.float32(0.5), light[..., :1] * np.array([0.5, 0.25, 0.125]), atol=1e-6)
    assert 0.3 < light[100, 100, 0] < 1


def test_a_smaller_core_than_a_pixel_keeps_its_light() -> None:
    sums = [
        light_of([Lamp(50.0, 50.0, (1.0, 1.0, 1.0), 100.0, 1e4, axes=(r, r))], 100, 100).sum() / r**2
        for r in (0.2, 3.0)
    ]
    assert sums[0] == pytest.approx(sums[1], rel=0.05)
