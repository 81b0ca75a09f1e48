"""Detail transfer on scenes whose right answer is known: the edit without the autoencoder's blur."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from diffgen.editing.levers.detail_transfer import transfer
from tests.fakes import photo

# Lights, as linear changes of grey levels: (name, slope, offset).
NIGHT, DUSK, FOG, SNOW = (0.15, 0.0), (0.4, 0.0), (0.3, 0.6 * 255), (0.5, 100.0)


def scene(size: tuple[int, int] = (320, 240), seed: int = 3) -> np.ndarray:
    """A photo with texture of every scale, none of it clipped."""
    rng = np.random.default_rng(seed)
    out = 0.6 * photo(seed, size).astype(np.float64) + 40
    for sigma, strength in ((0.7, 7), (2, 8), (6, 10)):
        noise = cv2.GaussianBlur(rng.normal(size=out.shape[:2]), (0, 0), sigma)
        out += (strength * noise / noise.std())[..., None]
    return to_pixels(out)


def to_pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def lit(source: np.ndarray, light: tuple[float, float]) -> np.ndarray:
    return to_pixels(light[0] * source.astype(np.float64) + light[1])


def melted(pixels: np.ndarray, factor: int = 2) -> np.ndarray:
    """As an autoencoder, or a model that worked smaller, leaves it."""
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def fine(pixels: np.ndarray) -> np.ndarray:
    """The luminance's structure of about 5 pixels and less."""
    grey = pixels.astype(np.float64).mean(axis=2)
    return grey - cv2.GaussianBlur(grey, (0, 0), 1.5)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(fine(a).ravel(), fine(b).ravel())[0, 1])


def slope(result: np.ndarray, source: np.ndarray) -> float:
    """How much of the source's fine structure is in the result: 1 is all of it."""
    return float((fine(result) * fine(source)).sum() / (fine(source) ** 2).sum())


def error(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square, in grey levels."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def soft_box(shape: tuple[int, ...], feather: float = 8) -> np.ndarray:
    """1 in the middle half of the picture, falling to 0 over `feather` pixels outside it."""
    height, width = shape[:2]
    y, x = np.mgrid[:height, :width]
    outside = np.maximum.reduce([height / 4 - y, y - height * 3 / 4, width / 4 - x, x - width * 3 / 4])
    return (1 - outside / feather).clip(0, 1).astype(np.float32)


SCENE = scene()


@pytest.mark.parametrize("amount", [0, 0.0, np.float32(0), np.zeros(SCENE.shape[:2], np.float32)])
def test_nothing_of_it_is_the_edit_bit_for_bit(amount: float) -> None:
    edited = melted(lit(SCENE, DUSK))
    assert np.array_equal(transfer(SCENE, edited, amount), edited)


@pytest.mark.parametrize(("width", "reach"), [(320, 8), (640, 16), (1280, 32)])
def test_outside_the_mask_the_edit_stays_bit_for_bit(width: int, reach: int) -> None:
    source = scene((width, 360))
    edited = melted(lit(source, DUSK), 3)
    mask = np.zeros(source.shape[:2], np.float32)
    mask[100:200, 80:200] = 1
    near = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1))) > 0
    changed = (transfer(source, edited, mask) != edited).any(axis=2)
    assert not changed[~near].any()
    assert changed[mask == 1].mean() > 0.5


@pytest.mark.parametrize("amount", [1.0, 0.3, soft_box(SCENE.shape)])
def test_a_picture_on_itself_stays(amount: float) -> None:
    assert np.abs(transfer(SCENE, SCENE, amount).astype(int) - SCENE).max() <= 1


@pytest.mark.parametrize("light", [NIGHT, DUSK, FOG, SNOW, (1.0, 0.0)], ids=["night", "dusk", "fog", "snow", "same"])
def test_sharpness_comes_back(light: tuple[float, float]) -> None:
    """Measured at dusk: likeness 0.70 to 0.995, energy 0.60 to 0.91, error 2.5 to 0.6 grey levels (40 to 52 dB)."""
    ideal = lit(SCENE, light)
    edited = melted(ideal)
    result = transfer(SCENE, edited, 1.0)
    assert alike(edited, ideal) < 0.85
    assert alike(result, ideal) > 0.93  # at night one grey level is a quarter of the texture
    assert fine(edited).std() < 0.75 * fine(ideal).std()
    assert 0.85 < fine(result).std() / fine(ideal).std() < 1.1
    assert error(result, ideal) < 0.5 * error(edited, ideal)


@pytest.mark.parametrize(("width", "factor"), [(320, 2), (640, 3), (1280, 6)])
def test_a_longer_picture_gets_coarser_bands_back(width: int, factor: int) -> None:
    source = scene((width, width * 9 // 16))
    ideal = lit(source, DUSK)
    edited = melted(ideal, factor)
    assert error(transfer(source, edited, 1.0), ideal) < 0.45 * error(edited, ideal)


@pytest.mark.parametrize(("light", "sharp"), [(NIGHT, True), (NIGHT, False), (FOG, True), (FOG, False)])
def test_detail_is_as_strong_as_the_edits_light_and_air_allow(light: tuple[float, float], sharp: bool) -> None:
    """Fog is brighter than its source: by brightness alone the gain would be above 1 there."""
    edited = lit(SCENE, light) if sharp else melted(lit(SCENE, light))
    result = transfer(SCENE, edited, 1.0)
    assert 0.85 * light[0] < slope(result, SCENE) < 1.05 * light[0]
    assert fine(result).std() < 1.1 * light[0] * fine(SCENE).std()


def test_contrast_that_the_light_cannot_give_is_not_pasted() -> None:
    """Everything 60 levels darker, so by slope alone a black street would get a daylight car's detail."""
    source = to_pixels(SCENE * 0.5 + 40)
    edited = melted(to_pixels(source - 60.0), 3)
    assert slope(transfer(source, edited, 1.0), source) < 0.5


def test_no_detail_is_stronger_than_the_sources() -> None:
    """A brightened edit would otherwise show the source's noise."""
    source, edited = lit(SCENE, (0.5, 0)), melted(lit(SCENE, (0.9, 0)))
    assert slope(transfer(source, edited, 1.0), source) < 1.15


@pytest.mark.parametrize("light", [NIGHT, DUSK, FOG])
def test_detail_that_the_edit_kept_is_not_doubled(light: tuple[float, float]) -> None:
    edited = lit(SCENE, light)
    result = transfer(SCENE, edited, 1.0)
    assert error(result, edited) < 0.6
    assert fine(result).std() < 1.02 * fine(edited).std()


def test_an_edit_that_slipped_a_pixel_gets_its_edges_back_in_place_and_not_twice() -> None:
    ideal = lit(SCENE, DUSK)
    edited = melted(np.roll(ideal, 1, axis=1))
    result = transfer(SCENE, edited, 1.0)
    assert error(result[:, 8:-8], ideal[:, 8:-8]) < 0.5 * error(edited[:, 8:-8], ideal[:, 8:-8])
    assert fine(result).std() < 1.02 * fine(ideal).std()


def test_half_the_amount_is_half_the_change() -> None:
    edited = melted(lit(SCENE, DUSK))
    full, half = (transfer(SCENE, edited, a).astype(float) - edited for a in (1.0, 0.5))
    assert (full * half).sum() / (full * full).sum() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("light", [NIGHT, DUSK, FOG, SNOW], ids=["night", "dusk", "fog", "snow"])
@pytest.mark.parametrize("radius", [1, 2, 3, 5])
def test_a_flake_on_an_object_survives(light: tuple[float, float], radius: int) -> None:
    """Flakes on the smooth and the textured parts of the picture, against the same picture without them."""
    bare = melted(lit(SCENE, light))
    edited = bare.copy()
    centres = [(x, y) for y in range(25, 230, 30) for x in range(25, 310, 30)]
    for centre in centres:
        cv2.circle(edited, centre, radius, (235, 235, 235), -1, cv2.LINE_AA)
    result, without = transfer(SCENE, edited, 0.8), transfer(SCENE, bare, 0.8)
    x, y = np.array(centres).T
    drawn = (edited.astype(float) - bare)[y, x].mean(axis=1)
    left = (result.astype(float) - without)[y, x].mean(axis=1)
    seen = drawn > 40
    assert np.median(left[seen] / drawn[seen]) > 0.85
    assert np.mean(left[seen] / drawn[seen] > 0.6) > 0.9


@pytest.mark.parametrize("light", [NIGHT, DUSK, FOG], ids=["night", "dusk", "fog"])
@pytest.mark.parametrize("feather", [8, 0.01])
def test_the_masks_edge_leaves_no_halo(light: tuple[float, float], feather: float) -> None:
    """The sun lies on the object in the source only, the hardest case for brightness.

    Across the box's left edge, averaged along it, no pixel's step is steeper than the edit's own by more than 1 grey
    level (0.53 measured), or than the steeper of the edit's and a transfer's everywhere by more than 0.2 (0.03); and
    the brightness changes by less than 1 (0.5).
    """
    source = scene((640, 480))
    edited = melted(lit(source, light), 3)
    sun = cv2.GaussianBlur(soft_box(source.shape, 40), (0, 0), 12)
    source = to_pixels(source + 50.0 * sun[..., None])
    pictures = edited, transfer(source, edited, 1.0), transfer(source, edited, soft_box(source.shape, feather))
    profiles = [picture[140:340, 120:200].astype(float).mean(axis=(0, 2)) for picture in pictures]
    own, everywhere, masked = (np.abs(np.diff(profile)) for profile in profiles)
    assert (masked - own).max() < 1.0
    assert (masked - np.maximum(own, everywhere)).max() < 0.2
    assert np.abs(profiles[2] - profiles[0]).max() < 1.0


@pytest.mark.parametrize("light", [NIGHT, FOG])
def test_low_frequencies_stay_the_edits(light: tuple[float, float]) -> None:
    """Even where the edit's light has steps that the source has not."""
    edited = melted(lit(SCENE, light)).astype(float)
    edited[:, 160:] *= 0.6
    edited = to_pixels(edited)
    result = transfer(SCENE, edited, 1.0)
    before, after = (cv2.blur(picture.astype(float), (48, 48)) for picture in (edited, result))
    assert np.abs(after - before).max() < 1.0


def test_brightness_across_a_narrow_strip_stays_the_edits() -> None:
    """A panorama of 16 rows has no room for the four bands of its length."""
    texture = scene((2000, 16)).astype(float) - 128
    slope_down = np.linspace(-60, 60, 16)[:, None, None]
    source, edited = to_pixels(128 + texture * 0.5 + slope_down), to_pixels(100 + texture * 0.4)
    rows = [picture.astype(float).mean(axis=(1, 2)) for picture in (edited, transfer(source, edited, 1.0))]
    assert np.abs(rows[1] - rows[0]).max() < 6


def walls(pitch: int, width: int = 320) -> np.ndarray:
    """-1 to 1: dark windows of half the pitch on a light wall."""
    y, x = np.mgrid[:240, :width]
    windows = (x % pitch < pitch // 2) & (y % pitch < pitch // 2)
    return cv2.GaussianBlur(np.where(windows, -1.0, 1.0), (0, 0), 0.7)


@pytest.mark.parametrize("pitch", [4, 8, 16, 32, 64])
def test_lit_windows_at_night_do_not_get_the_dark_ones_back(pitch: int) -> None:
    house = walls(pitch)[..., None] * np.ones(3)
    source, edited = to_pixels(130 + 60 * house), melted(to_pixels(60 - 30 * house))
    result = transfer(source, edited, 1.0)
    assert alike(result, source) < -0.5
    assert error(result, edited) < 2.0
    kept = transfer(source, melted(to_pixels(60 + 30 * house)), 1.0)
    assert alike(kept, source) > 0.9


def test_small_lit_windows_in_a_house_that_kept_its_shape() -> None:
    """The coarse structure agrees, so the gain is that of the night: only the bands themselves can tell."""
    house, small = walls(160, 1280), walls(8, 1280)
    source = to_pixels((130 + 50 * house + 30 * small)[..., None] * np.ones(3))
    edited = to_pixels((60 + 20 * house - 12 * small)[..., None] * np.ones(3))
    result = transfer(source, edited, 1.0)
    on_the_wall = np.abs(cv2.GaussianBlur(house, (0, 0), 6)) > 0.99
    assert on_the_wall.mean() > 0.1
    change = result.astype(float) - edited
    assert np.abs(change[on_the_wall]).mean() < 1.0
    kept = to_pixels((60 + 20 * house + 4 * small)[..., None] * np.ones(3))  # melted to a third, but not swapped
    change = transfer(source, kept, 1.0).astype(float) - kept
    assert np.abs(change[on_the_wall]).mean() > 4.0


@pytest.mark.parametrize(
    "shape", [(10, 10), (10, 11), (11, 17), (13, 2000), (33, 64), (65, 33), (161, 321), (479, 641), (719, 1279)]
)
def test_any_size_goes(shape: tuple[int, int]) -> None:
    source = np.random.default_rng(1).integers(30, 220, (*shape, 3), dtype=np.uint8)
    edited = cv2.GaussianBlur(lit(source, DUSK), (0, 0), 1.2)
    result = transfer(source, edited, soft_box(shape))
    assert (result.shape, result.dtype) == (edited.shape, np.uint8)
    assert slope(result, source) > slope(edited, source)


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("other", [0, 128, 255])
def test_flat_pictures_stay_flat(grey: int, other: int) -> None:
    source, edited = np.full((64, 96, 3), grey, np.uint8), np.full((64, 96, 3), other, np.uint8)
    assert np.array_equal(transfer(source, edited, 1.0), edited)


GOOD = np.zeros((20, 30, 3), np.uint8)
BAD = [
    (GOOD.astype(np.float32), GOOD, 1.0),
    (GOOD, GOOD[..., 0], 1.0),
    (GOOD, GOOD[..., :2], 1.0),
    (GOOD[:9], GOOD[:9], 1.0),
    (GOOD, GOOD[:-1], 1.0),
    (GOOD, GOOD, np.ones((20, 29), np.float32)),
    (GOOD, GOOD, np.ones((20, 30, 1), np.float32)),
    (GOOD, GOOD, np.ones((20, 30), np.float64)),
    (GOOD, GOOD, np.ones((20, 30), np.uint8)),
    (GOOD, GOOD, 1.01),
    (GOOD, GOOD, -0.1),
    (GOOD, GOOD, float("nan")),
    (GOOD, GOOD, np.full((20, 30), np.nan, np.float32)),
]


@pytest.mark.parametrize(("source", "edited", "amount"), BAD)
def test_what_cannot_be_is_refused(source: np.ndarray, edited: np.ndarray, amount: float) -> None:
    with pytest.raises(ValueError, match=r"source|edited|amount"):
        transfer(source, edited, amount)


def test_the_same_goes_in_and_the_same_comes_out() -> None:
    edited, mask = melted(lit(SCENE, DUSK)), soft_box(SCENE.shape)
    given = SCENE.copy(), edited.copy(), mask.copy()
    first, again = (transfer(SCENE, edited, mask) for _ in range(2))
    assert np.array_equal(first, again)
    assert all(np.array_equal(a, b) for a, b in zip(given, (SCENE, edited, mask), strict=True))
