"""Facts about an edited image, and the verdict over them. Pure: arrays and numbers in, numbers out.

Measuring and judging are apart on purpose: a fact is written once, a threshold may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.annotate import lacks_its_class
from diffgen.blend import traced
from diffgen.facts import STATISTICS, condition_statistics, happened, new_objects, recall, relative_recall
from diffgen.facts import Found as Box
from diffgen.geometry import Pixels
from diffgen.labels import Shape
from diffgen.tasks import confirmed, still_there
from diffgen.types import Record, Verdict

Plane = NDArray[np.float32]
Row = NDArray[np.float32]
Field = NDArray[np.complex64]

REGISTRATION_SIDE = 640  # pixels; a longer picture is scaled down to this before its shift is measured
LEAST_PEAK = 0.1  # below this correlation a picture has too little in common with its source to measure a shift
FLAT = 5e-4  # mean gradient of the luminance per pixel: an eighth of one step of an 8-bit picture
LEAST_OBJECT = 8  # pixels; smaller objects have too few gradients for their agreement to be judged (it is recorded)


class Thresholds(Protocol):
    """What `judge` asks of a recipe's checks; None turns a check off."""

    @property
    def structure(self) -> float | None: ...
    @property
    def registration(self) -> float | None: ...
    @property
    def contrast(self) -> float | None: ...
    @property
    def happened(self) -> float | None: ...
    @property
    def recall(self) -> float | None: ...
    @property
    def new_objects(self) -> int | None: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def on_object_lost(self) -> str: ...
    @property
    def confidence(self) -> float: ...


def measure(source: Pixels, edited: Pixels, shapes: Sequence[Shape]) -> dict[str, Any]:
    """All facts of one edit. `source` and `edited` are (H, W, 3) of one size, upright.

    Keys: `luminance` and `contrast` (mean and deviation, 0–1), `shift_px` and `shift_peak` (registration), `structure`
    (one number per shape, in label order; None where its box holds no pixel), `structure_image` (the whole picture),
    `before` and `after` (`facts.condition_statistics` of both, in the order of `facts.STATISTICS`).
    """
    before, after = luminance(source), luminance(edited)
    shift, peak = registration(before, after)
    fields = double_angle(before), double_angle(after)
    per_object = [_object_agreement(*fields, shape) for shape in shapes]
    whole = agreement(*fields, (0, 0, before.shape[1], before.shape[0]))
    return {
        "luminance": round(float(after.mean()), 4),
        "contrast": round(float(after.std()), 4),
        "shift_px": round(shift, 2),
        "shift_peak": round(peak, 3),
        "structure": [None if value is None else round(value, 3) for value in per_object],
        "sides_px": [_shorter_side(shape, before.shape) for shape in shapes],
        "structure_image": None if whole is None else round(whole, 3),
        "before": list(condition_statistics(source).values()),
        "after": list(condition_statistics(edited).values()),
    }


def measure_imagined(made: Pixels, asked: int) -> dict[str, Any]:
    """The facts of a picture (H, W, 3) made from noise: of those of `measure` what needs no source, `luminance` and
    `contrast`; and `asked`, the class id that its prompt names."""
    light = luminance(made)
    return {"asked": asked, "luminance": round(float(light.mean()), 4), "contrast": round(float(light.std()), 4)}


def measure_detections(
    source: Sequence[Box], edited: Sequence[Box], matched: Sequence[Box], shapes: Sequence[Shape], size: tuple[int, int]
) -> dict[str, Any]:
    """What a detector finds in the source, in the edit, and in the edit brought to the source's brightness.

    Keys: `found`, `found_matched` and `found_px` (one entry per box of the source: found again, its side in pixels),
    `new_objects` (how many confident boxes of the edit lie where nothing was).
    """
    plain = relative_recall(source, edited, size)
    return {
        **plain,
        "found_matched": relative_recall(source, matched, size)["found"],
        "new_objects": len(new_objects(source, edited, shapes)),
    }


def judged_happened(facts: Mapping[str, Any], condition: str) -> float | None:
    """The number that `checks.happened` is held against; None for records without it, unknown conditions, and tasks."""
    if "after" not in facts or "task" in facts:
        return None
    before, after = (dict(zip(STATISTICS, facts[key], strict=True)) for key in ("before", "after"))
    return happened(condition, before, after)


def measure_clip(source: Row, edited: Row, text: Row) -> dict[str, list[float]]:
    """CLIP scores of the source and of the edit against the job's prompt, −1 to 1, from unit vectors (D,) each."""
    return {"clip": [round(float(picture @ text), 4) for picture in (source, edited)]}


def judged_clip(facts: Mapping[str, Any]) -> float | None:
    """The number that `checks.clip` is held against: how much nearer to the words the edit brought the picture.

    None where only an object was painted, which the words are about and not the picture.
    """
    if "clip" not in facts or facts.get("task") in ("remove", "insert"):
        return None
    before, after = facts["clip"]
    return round(float(after) - float(before), 4)


def judged_recall(facts: Mapping[str, Any], size: str | None = None) -> float | None:
    """The number that `checks.recall` is held against: the share of the detector's objects found in either look.

    A detector trained by day misses true objects at night, which are the ones worth having; the copy brought to the
    source's brightness shows that they are still there. None without a detector, or where it found nothing; `size` is one
    of `facts.COCO_SIZES`.
    """
    if "found" not in facts:
        return None
    either = [a or b for a, b in zip(facts["found"], facts["found_matched"], strict=True)]
    return recall({"found": either, "found_px": facts["found_px"]}, size)


def judge(record: Record, checks: Thresholds, condition: str = "", decision: str | None = None) -> Verdict:
    """Accept or reject by recorded facts alone. Loosening a threshold never rejects what was accepted.

    A person's `decision` ("reject" or "keep") overrules every threshold; what failed to be made stays failed.

    A fact that was not recorded (no detector, a condition that nothing is known about) is not judged.
    """
    if record.status != "made":
        return Verdict(False, "failed")
    if decision is not None:
        return Verdict(True) if decision == "keep" else Verdict(False, "review")
    facts = record.facts
    if checks.contrast is not None and facts["contrast"] < checks.contrast:
        return Verdict(False, "degenerate")
    if (
        checks.registration is not None
        and "task" not in facts  # what is kept is the source's own pixels, what is painted has nothing to lie on
        and (shift := judged_shift(facts)) is not None
        and shift > checks.registration
    ):
        return Verdict(False, "registration")
    structure = judged_structure(facts)
    if checks.on_object_lost == "drop_label" and (measured := _measured(facts)):
        if len(lost_objects(facts, checks)) == len(measured):
            return Verdict(False, "structure")
    elif checks.structure is not None and structure is not None and structure < checks.structure:
        return Verdict(False, "structure")
    if still_there(facts):
        return Verdict(False, "still-there")
    if not confirmed(facts):
        return Verdict(False, "not-confirmed")
    if lacks_its_class(facts, checks.confidence):
        return Verdict(False, "unlabelled")
    found = judged_recall(facts)
    if checks.recall is not None and found is not None and found < checks.recall:
        return Verdict(False, "recall")
    if checks.new_objects is not None and facts.get("new_objects", 0) > checks.new_objects:
        return Verdict(False, "new-objects")
    moved = judged_happened(facts, condition)
    if checks.happened is not None and moved is not None and moved < checks.happened:
        return Verdict(False, "unchanged")
    nearer = judged_clip(facts)
    if checks.clip is not None and nearer is not None and nearer < checks.clip:
        return Verdict(False, "unchanged")
    return Verdict(True)


def lost_objects(facts: Mapping[str, Any], checks: Thresholds) -> list[int]:
    """Which label rows go with `on_object_lost: drop_label`: objects large enough to measure, below `structure`."""
    if checks.on_object_lost != "drop_label" or checks.structure is None:
        return []
    return [i for i, value in _measured(facts) if value < checks.structure]


def _measured(facts: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(label row, structure) of the objects that are large enough, and have edges enough, to be measured; none that a task
    removed."""
    pairs = enumerate(zip(facts.get("structure", ()), facts.get("sides_px", ()), strict=True))
    gone = facts.get("removed", ())
    return [(i, value) for i, (value, side) in pairs if value is not None and side >= LEAST_OBJECT and i not in gone]


def judged_shift(facts: Mapping[str, Any]) -> float | None:
    """The number that `checks.registration` is held against, in pixels; None where the picture has too little in common with
    its source, or has none."""
    if facts.get("shift_peak", 0.0) < LEAST_PEAK:
        return None
    return float(facts["shift_px"])


def judged_structure(facts: Mapping[str, Any]) -> float | None:
    """The number that `checks.structure` is held against: the lower quartile of the objects large enough to measure.

    The quartile and not the least, because one object that snow has covered does not make a picture wrong; not the
    mean, because many good objects must not hide a lost quarter. Without such objects it is the whole picture's; but a
    task's picture is another on purpose.
    """
    values = sorted(value for _, value in _measured(facts))
    if not values and "task" in facts:
        return None
    if not values:
        whole: float | None = facts.get("structure_image")
        return whole
    return float(values[(len(values) - 1) // 4])


def luminance(pixels: Pixels) -> Plane:
    """(H, W) in 0–1: Rec. 709 weights on the sRGB values."""
    weights = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32) / 255
    return np.asarray(pixels.astype(np.float32) @ weights, dtype=np.float32)


def double_angle(plane: Plane) -> Field:
    """The gradient in double-angle form: z² / |z| for the gradient z, smoothed by a 5-tap binomial.

    Doubling the angle makes an edge and the same edge with light and dark swapped equal, which night does to windows
    and lamps (Granlund and Knutsson, Signal Processing for Computer Vision, 1995). Shape (H, W).
    """
    smooth = _binomial(_binomial(plane))
    gy, gx = np.gradient(smooth) if min(plane.shape) > 1 else (np.zeros_like(plane), np.zeros_like(plane))
    z: Field = np.asarray(gx + 1j * gy, dtype=np.complex64)
    return np.asarray(z * z * (1 / np.maximum(_size(z), np.float32(1e-12))), dtype=np.complex64)


def _object_agreement(before: Field, after: Field, shape: Shape) -> float | None:
    box = _pixel_box(shape, before.shape)
    return agreement(before, after, box, traced(shape, (before.shape[1], before.shape[0]), box))


def agreement(
    before: Field, after: Field, box: tuple[int, int, int, int], inside: NDArray[np.bool_] | None = None
) -> float | None:
    """Do the edges inside `box` (x0, y0, x1, y1 in pixels) lie where and as they lay? −1 to 1.

    Of its pixels only those of `inside` (of the box's size) count. None for an empty box, and for one without edges in the
    source (an overexposed car): there is nothing to compare.

    The normalised correlation of two double-angle fields, each divided by its magnitude plus the box's own mean
    magnitude, so that contrast and brightness drop out: 1 is the same structure, about 0 unrelated, below 0 crossing
    edges. After the normalised gradient fields of Haber and Modersitzki (Intensity gradient based registration, 2006).
    """
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return None
    cuts = [field[y0:y1, x0:x1] for field in (before, after)]
    if inside is not None:
        cuts = [cut[inside] for cut in cuts]
    if not cuts[0].size or _size(cuts[0]).mean() < FLAT:
        return None
    a, b = (_normalised(cut) for cut in cuts)
    power = np.sqrt(_power(a) * _power(b))
    return float(np.vdot(b, a).real / power) if power > 0 else 0.0


def _normalised(field: Field) -> Field:
    size = _size(field)
    return np.ascontiguousarray(field * (1 / (size + size.mean() + np.float32(1e-9))))


def _size(field: Field) -> Plane:
    """The magnitude; several times faster than `np.abs`, which guards against overflow that cannot happen here."""
    return np.asarray(np.sqrt(field.real**2 + field.imag**2), dtype=np.float32)


def _power(field: Field) -> float:
    return float(np.vdot(field, field).real)


def registration(before: Plane, after: Plane) -> tuple[float, float]:
    """(shift, peak): how far `after` lies from `before`, in pixels of the picture, and the correlation there (0–1).

    Orientation correlation (Fitch, Kadyrov, Christmas, Kittler, BMVC 2002): phase correlation's cousin on gradient
    directions, which light and weather change least; sub-pixel by a parabola through the peak. Looks up to an eighth of
    the shorter side.
    """
    scale = max(before.shape) / min(max(before.shape), REGISTRATION_SIDE)
    if scale > 1:
        before, after = (_shrink(plane, scale) for plane in (before, after))
    window = np.outer(_window(before.shape[0]), _window(before.shape[1])).astype(np.float32)
    a, b = (_normalised(double_angle(plane)) * window for plane in (before, after))
    power = np.sqrt(_power(a) * _power(b))
    if power == 0:
        return 0.0, 0.0
    surface = np.fft.ifft2(np.fft.fft2(b) * np.fft.fft2(a).conj()).real / power
    reach = max(1, min(before.shape) // 8)
    near = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    dy, dx = _vertex(near[:, x], int(y)) - reach, _vertex(near[y, :], int(x)) - reach
    return float(np.hypot(dx, dy)) * scale, float(near[y, x])


def _vertex(line: NDArray[Any], i: int) -> float:
    """Where the parabola through line[i−1 … i+1] is highest; i itself at the border."""
    if not 0 < i < len(line) - 1:
        return float(i)
    left, middle, right = (float(v) for v in line[i - 1 : i + 2])
    bend = left - 2 * middle + right
    return i if bend >= 0 else i + 0.5 * (left - right) / bend


def _binomial(plane: Plane) -> Plane:
    for axis in (0, 1):
        padded = np.pad(plane, [(1, 1) if i == axis else (0, 0) for i in (0, 1)], mode="edge")
        lower, upper = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        plane = 0.5 * plane + 0.25 * (lower + upper)
    return plane


def _window(n: int) -> NDArray[Any]:
    return np.hanning(n + 2)[1:-1]


def _shrink(plane: Plane, scale: float) -> Plane:
    size = max(1, round(plane.shape[1] / scale)), max(1, round(plane.shape[0] / scale))
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX), dtype=np.float32)


def _pixel_box(shape: Shape, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    height, width = size
    x0, y0, x1, y1 = shape.box
    left, top = max(0, int(np.floor(x0 * width))), max(0, int(np.floor(y0 * height)))
    return left, top, min(width, int(np.ceil(x1 * width))), min(height, int(np.ceil(y1 * height)))


def _shorter_side(shape: Shape, size: tuple[int, ...]) -> float:
    x0, y0, x1, y1 = shape.box
    return round(min((x1 - x0) * size[1], (y1 - y0) * size[0]), 1)
