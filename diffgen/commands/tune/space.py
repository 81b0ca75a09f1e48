"""The search space: a grid of values for each lever (setting) of a condition, and how a point is written in a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lever:
    """The possible `values` of a setting, in order unless they are words. At the value `off` it does nothing."""

    name: str
    values: tuple[Any, ...]
    off: Any

    @property
    def ordered(self) -> bool:
        return not isinstance(self.values[0], str)


def _steps(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(round(low + step * i, 3) for i in range(round((high - low) / step) + 1))


STRENGTH = Lever("strength", _steps(0.3, 1.0, 0.05), None)
LEVERS = (
    Lever("range", (0.0, 0.2, 0.4), 0.0),
    Lever("objects.strength", _steps(0.5, 1, 0.1), 1.0),
    Lever("detail", _steps(0, 1, 0.1), 0.0),
    Lever("objects.detail", _steps(0, 1, 0.1), 0.0),
    Lever("objects.restore", (0.0, 0.3, 0.5, 0.7), 0.0),
    Lever("match.amount", _steps(0, 1, 0.1), 0.0),
    Lever("match.method", ("histogram", "reinhard", "fourier"), "histogram"),
    Lever("sensor.exposure", _steps(-2, 1, 0.25), 0.0),
    Lever("sensor.noise", (0.0, 0.01, 0.02, 0.03, 0.05), 0.0),
    Lever("sensor.blur", (0.0, 0.001, 0.002, 0.003), 0.0),
    Lever("sensor.glare", (0.0, 0.05, 0.1, 0.2), 0.0),
)
LIGHTS = Lever("lights.share", (0.0, 0.3, 0.6, 0.9), 0.0)  # for dark targets
LARGE = (  # for models that are not told a severity; times the model's own value
    Lever("guidance", (0.5, 0.7, 1.0, 1.4, 2.0), 1.0),
    Lever("image_guidance", (0.8, 1.0, 1.25, 1.5), 1.0),
    Lever("steps", (0.5, 0.75, 1.0, 1.5), 1.0),
)


def off(levers: Sequence[Lever]) -> Point:
    return {lever.name: lever.off for lever in levers}


def fields(point: Mapping[str, Any], folder: str, usual: Mapping[str, float]) -> dict[str, Any]:
    """A point as keys of a condition; levers that are off are left out. `folder` has the target's pictures, `usual` are the
    model's own steps and guidances."""
    top, width = float(point["strength"]), float(point.get("range", 0))
    low = max(0.05, round(top - width, 3))
    made: dict[str, Any] = {"strength": [low, top] if low < top else top}
    objects = {key: value for key in ("detail", "restore") if (value := point.get(f"objects.{key}", 0.0))}
    if (share := point.get("objects.strength", 1.0)) < 1:
        objects = {"strength": round(share * low, 3)} | objects
    sensor = {
        key: value for key in ("exposure", "noise", "blur", "glare") if (value := point.get(f"sensor.{key}", 0.0))
    }
    if point.get("match.amount"):
        made["match"] = {"folder": folder, "method": point["match.method"], "amount": point["match.amount"]}
    if point.get("lights.share"):
        made["lights"] = {"share": point["lights.share"]}
    for key in (lever.name for lever in LARGE if point.get(lever.name, 1.0) != 1):
        value = usual[key] * point[key]
        made[key] = max(1, round(value)) if key == "steps" else round(value, 2)
    made |= {"detail": point["detail"]} if point.get("detail") else {}
    made |= {"objects": objects} if objects else {}
    return made | ({"sensor": sensor} if sensor else {})
