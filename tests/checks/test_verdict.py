"""The verdicts over what was measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from diffgen.checks.statistics import distance, small
from diffgen.checks.structure import judged_structure
from diffgen.checks.verdict import judge, object_words
from diffgen.recipe.presets import presets
from diffgen.recipe.sections import Checks
from diffgen.types import Record
from tests.checks.scenes import OBJECT, OTHER, SCENE, facts_of, moved
from tests.fakes import photo


def facts(**changes: object) -> dict[str, object]:
    return {
        "contrast": 0.2, "shift_px": 0.1, "shift_peak": 0.9, "structure": [0.9], "sides_px": [50.0],
        "structure_image": 0.9, **changes,
    }  # fmt: skip


# (name, facts, checks, reason or None)
VERDICTS: list[tuple[str, dict[str, object], dict[str, object], str | None]] = [
    ("good", {}, {}, None),
    ("flat", {"contrast": 0.01}, {}, "degenerate"),
    ("flat, not checked", {"contrast": 0.01}, {"contrast": None}, None),
    ("at the contrast threshold", {"contrast": 0.02}, {}, None),
    ("shifted", {"shift_px": 3.1}, {}, "registration"),
    ("at the shift threshold", {"shift_px": 2.0}, {}, None),
    ("shifted, not checked", {"shift_px": 9.0}, {"registration": None}, None),
    ("a shift that means nothing", {"shift_px": 9.0, "shift_peak": 0.05}, {}, None),
    ("object lost", {"structure": [0.1]}, {}, "structure"),
    ("at the structure threshold", {"structure": [0.2]}, {}, None),
    ("object lost, not checked", {"structure": [0.1]}, {"structure": None}, None),
    ("one of four lost is the lower quartile's business", {"structure": [0.0, 0.9, 0.9, 0.9],
      "sides_px": [50.0] * 4}, {}, "structure"),
    ("one of five lost", {"structure": [0.0, 0.9, 0.9, 0.9, 0.9], "sides_px": [50.0] * 5}, {}, None),
    ("two of five lost", {"structure": [0.0, 0.1, 0.9, 0.9, 0.9], "sides_px": [50.0] * 5}, {}, "structure"),
    ("a tiny object lost", {"structure": [0.0, 0.9], "sides_px": [7.9, 50.0]}, {}, None),
    ("an object that cannot be measured", {"structure": [None], "sides_px": [50.0]}, {}, None),
    ("no objects, picture like its source", {"structure": [], "sides_px": []}, {}, None),
    ("no objects, picture unlike", {"structure": [], "sides_px": [], "structure_image": 0.1}, {}, "structure"),
    ("flat comes before structure", {"contrast": 0.0, "structure": [0.0]}, {}, "degenerate"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "checks", "reason"), [v[1:] for v in VERDICTS], ids=[v[0] for v in VERDICTS])
def test_judge(changes: dict[str, object], checks: dict[str, object], reason: str | None) -> None:
    verdict = judge(Record("x", "made", facts(**changes)), Checks.model_validate(checks))
    assert (verdict.accepted, verdict.reason) == (reason is None, reason)


def test_a_failed_record_is_rejected_whatever_the_checks() -> None:
    off = Checks(structure=None, registration=None, contrast=None)
    assert judge(Record("x", "failed", kind="source", error="gone"), off).reason == "failed"


def test_judged_structure_does_not_depend_on_the_order_of_objects() -> None:
    values, sides = [0.1, 0.5, None, 0.7, 0.9], [20.0, 20.0, 20.0, 4.0, 20.0]
    forward = judged_structure(facts(structure=values, sides_px=sides))
    backward = judged_structure(facts(structure=values[::-1], sides_px=sides[::-1]))
    assert forward == backward == 0.1


@pytest.mark.parametrize("condition", presets())
def test_a_copy_passes_all_but_that_something_changed(condition: str) -> None:
    facts = facts_of(SCENE, SCENE, [OBJECT, OTHER]) | {"round_trip": 0.0}
    assert judge(Record("x", "made", facts), Checks(), condition).reason == "unchanged"
    assert judge(Record("x", "made", facts), Checks(change=None), condition).reason == "weak-effect"
    assert judge(Record("x", "made", facts), Checks(change=None, effect=None), condition).accepted


def test_a_copy_is_unchanged_whatever_the_condition_is_called() -> None:
    trip = (SCENE // 8 * 8).astype(np.uint8)  # a coarse autoencoder's
    for edited, reason in [(SCENE, "unchanged"), (trip, "unchanged"), (SCENE // 2, None)]:
        facts = facts_of(SCENE, edited, [OBJECT, OTHER]) | {"round_trip": distance(small(SCENE), small(trip))}
        assert judge(Record("x", "made", facts), Checks(), "of-my-own").reason == reason


SPOILED: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("shifted", lambda a: moved(a, 5, 0), "registration"),
    ("mirrored", lambda a: a[:, ::-1], "structure"),
    ("upside down", lambda a: a[::-1], "structure"),
    ("emptied", lambda a: np.full_like(a, 100), "degenerate"),
    ("melted", lambda a: np.array(Image.fromarray(a).resize((5, 4)).resize((320, 240))), "structure"),
]


@pytest.mark.parametrize(("change", "reason"), [(c, r) for _, c, r in SPOILED], ids=[n for n, _, _ in SPOILED])
def test_what_spoils_a_picture_fails_the_check_for_it(change: Callable[[np.ndarray], np.ndarray], reason: str) -> None:
    facts = facts_of(SCENE, np.ascontiguousarray(change(SCENE)), [OBJECT, OTHER])
    checks = Checks() if reason == "registration" else Checks(registration=None)  # a mirrored one may look shifted too
    assert judge(Record("x", "made", facts), checks, "night").reason == reason


DROP = Checks(on_object_lost="drop_label")


@pytest.mark.parametrize(
    ("structure", "sides", "whole"),
    [([-0.1, 0.0, 0.05, 0.1], [90, 80, 70, 5], 0.0), ([0.1], [5], -0.1), ([None], [50], -0.1)],
)
def test_dropping_labels_saves_no_picture_that_is_lost_as_a_whole(
    structure: list[float | None], sides: list[float], whole: float
) -> None:
    facts = {**facts_of(photo(1), photo(1), []), "structure": structure, "sides_px": sides, "structure_image": whole}
    assert judge(Record("x", "made", facts), Checks()).reason == "structure"
    assert judge(Record("x", "made", facts), DROP).reason == "structure"


def test_words_about_objects() -> None:
    facts = {
        "structure": [0.9, 0.1, None, 0.1, 0.05], "sides_px": [20.0, 20.0, 20.0, 20.0, 3.0], "restored": [0],
        "found_rows": [0, 1, 2, 3], "found": [False, False, True, True], "found_matched": [False, False, False, False],
    }  # fmt: skip
    words = {0: "restored, not found again", 1: "not found again, lost", 3: "lost"}
    assert object_words(facts, Checks()) == words
    assert object_words(facts, Checks(structure=None)) == {0: words[0], 1: "not found again"}
    assert object_words({}, Checks()) == {}
