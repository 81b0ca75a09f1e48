"""The shipped model by its weather: does the condition show, does it follow strength and seed, do objects stay."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diffgen
from diffgen.checks.structure import luminance
from diffgen.dataset.dataset import Dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.labels import Shape
from diffgen.editing.editor import EditBatch
from diffgen.editing.families import load_editor
from diffgen.models.find import resolve_model
from diffgen.plan.plan import plan_jobs
from diffgen.recipe.schema import Recipe
from tests.checks.scenes import facts_of
from tests.fakes import source

CONDITIONS = ("snow", "night", "fog", "rain", "dusk", "dawn", "overcast", "glare", "dust")
SIZE = (512, 352)  # (width, height), multiples of 32
FOLDER = Path(diffgen.__file__).parent / "models/pocket"
PAGODA = Path(__file__).parent / "data/pagoda.jpg"
PAGODA_SIZE = (640, 416)
# Its bushes, those at the left, and the far shore of its lake, as shares of the sides.
NEAR, BUSHES, FAR = (0.05, 0.72, 0.95, 1.0), (0.05, 0.8, 0.4, 1.0), (0.56, 0.5, 0.85, 0.66)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """The Ultralytics bus in its street, cut to the working size."""
    spec = find_spec("ultralytics")
    assert spec is not None
    assert spec.origin is not None
    image = Image.open(Path(spec.origin).parent / "assets/bus.jpg").convert("RGB").crop((0, 180, 810, 737))
    return np.asarray(image.resize(SIZE, Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def pagoda() -> np.ndarray:
    """A pagoda between bushes, before a lake: far and near."""
    with Image.open(PAGODA) as image:
        return np.asarray(image.resize(PAGODA_SIZE, Image.Resampling.LANCZOS))


def corners(part: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in px of a part of the pagoda's picture."""
    left, top, right, bottom = (round(share * side) for share, side in zip(part, PAGODA_SIZE * 2, strict=True))
    return left, top, right, bottom


@pytest.fixture(scope="module")
def edit(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    import torch

    torch.set_num_threads(2)
    model = resolve_model("pocket", None, Path(), FileCache(tmp_path_factory.mktemp("cache")))
    editor = load_editor(model, "cpu", "float32")

    def made(condition: str | dict[str, Any], seed: int, picture: np.ndarray, **changes: Any) -> np.ndarray:
        recipe = Recipe.model_validate({"dataset": "d", "output": "o", "conditions": [condition]})
        dataset = Dataset(Path("data.yaml"), ("person",), {}, (source(0), source(1, split="val")))
        (item,) = plan_jobs(recipe, dataset, model).items
        settings = replace(item.job.settings, **changes)
        (edited,) = editor.edit(EditBatch([picture], [replace(item.job, settings=settings, seed=seed)]))
        assert edited.image.shape == picture.shape
        return edited.image

    known: dict[str, np.ndarray] = {}

    def call(
        condition: str | dict[str, Any],
        seed: int = 1,
        picture: np.ndarray = photograph,
        *,
        again: bool = False,
        **changes: Any,
    ) -> np.ndarray:
        """The edit, which many tests look at; `again` makes it anew."""
        key = repr((condition, seed, id(picture), sorted(changes.items())))
        if again or key not in known:
            known[key] = made(condition, seed, picture, **changes)
        return known[key]

    return call


def mean(image: np.ndarray) -> float:
    return float(luminance(image).mean())


def spread(image: np.ndarray) -> float:
    return float(luminance(image).std())


def saturation(image: np.ndarray) -> float:
    high, low = image.max(axis=-1).astype(float), image.min(axis=-1).astype(float)
    return float(((high - low) / np.maximum(high, 1)).mean())


def warmth(image: np.ndarray) -> float:
    """Red over blue."""
    return float(image[..., 0].mean() / image[..., 2].mean())


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_strength_0_is_the_photograph_again(edit: Callable[..., np.ndarray], photograph: np.ndarray) -> None:
    error = (edit("night", strength=0.0).astype(float) - photograph).ravel()
    # The autoencoder's own loss in dB, on a picture full of lettering and railings; photographs as a rule lose less.
    assert 10 * np.log10(255**2 / (error**2).mean()) > 27  # measured 28.7


def test_night_is_dark(edit: Callable[..., np.ndarray], photograph: np.ndarray) -> None:
    assert mean(edit("night")) < 0.7 * mean(photograph)  # measured .61 on this sunlit wall


@pytest.mark.parametrize("condition", ["fog", "heavy-fog", "dust"])
def test_haze_flattens(condition: str, edit: Callable[..., np.ndarray], photograph: np.ndarray) -> None:
    assert spread(edit(condition)) < 0.85 * spread(photograph)


@pytest.mark.parametrize("condition", ["fog", "heavy-fog"])
def test_fog_hides_the_far_before_the_near(condition: str, edit: Callable[..., np.ndarray], pagoda: np.ndarray) -> None:
    def gradient(picture: np.ndarray, part: tuple[float, float, float, float]) -> np.ndarray:
        left, top, right, bottom = corners(part)
        return np.stack(np.gradient(luminance(picture)[top:bottom, left:right]))

    clear = edit(condition, picture=pagoda, strength=0.0)
    fogs = [edit(condition, seed=seed, picture=pagoda) for seed in range(8)]  # banks lie elsewhere in each

    def left(part: tuple[float, float, float, float]) -> float:
        """How much of the clear picture's gradients the foggy ones have: the slope of a regression, deaf to noise."""
        before = gradient(clear, part)
        return float(np.mean([(before * gradient(foggy, part)).sum() / (before * before).sum() for foggy in fogs]))

    left_near, left_far = left(NEAR), left(FAR)
    assert left_far < 0.6 * left_near, (left_far, left_near)


@pytest.mark.parametrize(
    "least",
    [
        0.8,
        pytest.param(
            1, marks=pytest.mark.xfail(strict=True, reason="snow there is darker than the pavement was, in full sun")
        ),
    ],
)
def test_snow_whitens_the_pavement_of_a_close_view(
    least: float, edit: Callable[..., np.ndarray], photograph: np.ndarray
) -> None:
    lower = SIZE[1] * 3 // 4
    before, after = photograph[lower:], edit("snow")[lower:]
    assert saturation(after) < 0.8 * saturation(before)
    assert mean(after) > least * mean(before)


@pytest.mark.parametrize(
    ("condition", "of", "least", "most"),
    [
        ("snow", saturation, 0, 0.9),
        ("rain", saturation, 0, 0.85),
        ("rain", mean, 0, 0.95),
        ("dusk", mean, 0, 0.6),
        ("dawn", mean, 0, 0.9),
        ("dawn", saturation, 0, 0.6),
        ("overcast", saturation, 0, 0.7),
        ("glare", warmth, 1.1, 2),
        ("dust", warmth, 1.25, 2),
    ],
)
def test_light_and_colour(
    condition: str,
    of: Callable[[np.ndarray], float],
    least: float,
    most: float,
    edit: Callable[..., np.ndarray],
    photograph: np.ndarray,
) -> None:
    assert least < of(edit(condition)) / of(photograph) < most


@pytest.mark.parametrize("condition", ["snow", "heavy-snow"])
def test_snow_whitens_bushes(condition: str, edit: Callable[..., np.ndarray], pagoda: np.ndarray) -> None:
    left, top, right, bottom = corners(BUSHES)

    def whiteness(image: np.ndarray) -> tuple[float, float]:
        light = luminance(image)
        bushes = float(light[top:bottom, left:right].mean())
        return bushes, bushes / float(light.mean())

    (before, share), (after, share_after) = whiteness(pagoda), whiteness(edit(condition, picture=pagoda))
    assert after > 1.1 * before, (before, after)
    assert share_after > 1.2 * share, (share, share_after)


@pytest.mark.parametrize("condition", ["snow", "night", "fog", "rain", "dusk", "overcast"])
def test_things_stay_where_they_are(condition: str, edit: Callable[..., np.ndarray], photograph: np.ndarray) -> None:
    facts = facts_of(photograph, edit(condition), [Shape(0, (0.05, 0.3, 0.95, 0.8))])
    assert facts["structure"][0] > 0.3
    assert facts["shift_px"] < 1


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_change_grows_with_strength(
    condition: str, edit: Callable[..., np.ndarray], photograph: np.ndarray
) -> None:
    """Five levels, one seed: the distance from the round trip grows."""
    base = edit(condition, strength=0.0).astype(float)
    levels = [float(np.abs(edit(condition, strength=s) - base).mean()) for s in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert all(after > before for before, after in itertools.pairwise(levels)), levels
    assert levels[-1] > 1.5 * levels[0], levels


def test_the_seed_decides_the_snow(edit: Callable[..., np.ndarray]) -> None:
    first, again, other = (
        edit("heavy-snow", seed=1),
        edit("heavy-snow", seed=1, again=True),
        edit("heavy-snow", seed=2),
    )
    assert (first == again).all()
    assert difference(first, other) > 3


@pytest.mark.parametrize(("condition", "least"), [("snow", 3.5), ("rain", 1.4), ("fog", 0.8)])
def test_flakes_streaks_and_banks_are_others_with_another_seed(
    condition: str, least: float, edit: Callable[..., np.ndarray]
) -> None:
    assert difference(edit(condition, seed=1), edit(condition, seed=2)) > least  # half of what was measured


@pytest.mark.parametrize(
    ("text", "condition", "share"),
    [("lying snow, no snowfall", "snow", 0.3), ("a wet road after the rain", "rain", 0.5)],
)
def test_nothing_falls_where_the_text_says_so(
    text: str, condition: str, share: float, edit: Callable[..., np.ndarray]
) -> None:
    still, falling = (
        difference(edit(what, seed=1), edit(what, seed=2)) for what in ({"name": "still", "prompt": text}, condition)
    )
    assert still < share * falling


def test_an_unlit_night_is_darker_and_has_no_lights(edit: Callable[..., np.ndarray], pagoda: np.ndarray) -> None:
    unlit = {"name": "unlit", "prompt": "an unlit night"}
    first, other = (luminance(edit(unlit, seed=seed, picture=pagoda)) for seed in (1, 2))
    assert first.mean() < 0.8 * mean(edit("night", seed=1, picture=pagoda))
    assert not (np.abs(first - other) > 40 / 255).any()


def test_a_word_it_does_not_know_breaks_nothing(edit: Callable[..., np.ndarray], photograph: np.ndarray) -> None:
    made = edit({"name": "zoo", "prompt": "unicorns at night"})
    assert mean(made) < 0.7 * mean(photograph)
    assert facts_of(photograph, made, [])["shift_px"] < 1


def test_the_seed_places_the_lights_of_a_night_and_none_on_the_street(edit: Callable[..., np.ndarray]) -> None:
    """Lights: pixels that differ by over 40 of 255 between two seeds. The street fills the lowest quarter."""
    nights = [edit("night", seed=seed) for seed in range(5)]
    assert (edit("night", seed=0, again=True) == nights[0]).all()
    pairs = itertools.pairwise(map(luminance, nights))
    lights = np.mean([np.abs(one - other) > 40 / 255 for one, other in pairs], axis=0)
    rows = SIZE[1]
    assert lights[3 * rows // 4 :].mean() < 0.1 * lights[: rows // 2].mean()
    assert lights[: rows // 2].sum() > 200


def test_lamps_stand_on_the_far_shore_and_not_in_the_sky(edit: Callable[..., np.ndarray], pagoda: np.ndarray) -> None:
    first, other = (luminance(edit("night", seed=seed, picture=pagoda)) for seed in (1, 2))
    lights = np.abs(first - other) > 40 / 255

    def of(part: tuple[float, float, float, float]) -> int:
        left, top, right, bottom = corners(part)
        return int(lights[top:bottom, left:right].sum())

    assert of((0.5, 0.5, 0.85, 0.75)) > 30
    assert of((0.5, 0.0, 0.85, 0.25)) == 0


@pytest.fixture(scope="module")
def stock() -> Any:
    """The shipped folder in the class that it names, as diffusers loads it."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_stock_diffusers_loads_it_and_it_is_small(stock: Any) -> None:
    assert type(stock).__name__ == "StableDiffusionInstructPix2PixPipeline"
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 40e6


def test_the_autoencoder_keeps_what_is_small(stock: Any, pagoda: np.ndarray) -> None:
    """Of a picture full of leaves, alone."""
    import torch

    image = torch.from_numpy(pagoda.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        back = stock.vae.decode(stock.vae.encode(image).latents).sample.clamp(-1, 1)
    assert 10 * np.log10(4 / float((back - image).square().mean())) > 24.5  # measured 25.4; of most photographs 41


@pytest.mark.parametrize("condition", CONDITIONS)
def test_without_a_number_words_say_how_much(condition: str, stock: Any, photograph: np.ndarray) -> None:
    import torch

    def change(text: str) -> float:
        generator = torch.Generator().manual_seed(3)
        given = {"num_inference_steps": 1, "guidance_scale": 1.0, "generator": generator}
        made = stock(text, image=Image.fromarray(photograph), **given).images[0]
        return float(np.abs(np.asarray(made).astype(float) - photograph).mean())

    light, plain, heavy = (change(f"{word}{condition}") for word in ("light ", "", "heavy "))
    assert light < 0.8 * plain
    assert plain < 0.97 * heavy
