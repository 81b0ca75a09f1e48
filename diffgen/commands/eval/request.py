"""What an evaluation is asked, and the command line's words for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffgen.errors import UsageError
from diffgen.recipe.yaml_reader import read_yaml


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """`tests` maps names to data.yaml files; the verdict is about the first. `oracle` is a data.yaml whose train split
    has real pictures of the condition; `targets` is a folder of unlabelled ones. `options` go to Ultralytics' train;
    its `imgsz` also applies to the tests. `most` limits the pictures added to the real ones; each of `ratios` is an
    arm with fewer synthetic images; `staged` adds the arm `pretrain-finetune`. `classes` are measured; None: all that
    run and test have in common."""

    run: Path
    weights: Path
    tests: Mapping[str, Path]
    arms: tuple[str, ...] | None = None
    oracle: Path | None = None
    targets: Path | None = None
    seeds: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu",)
    classes: tuple[str, ...] | None = None
    most: int | None = None
    ratios: tuple[float, ...] = ()
    staged: bool = False
    folder: Path | None = None
    require: str | None = None


def default_devices() -> tuple[str, ...]:
    """Every GPU that torch sees, else the CPU."""
    with suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            return tuple(str(i) for i in range(torch.cuda.device_count()))
    return ("cpu",)


def read_options(text: str) -> dict[str, Any]:
    """`lr0=0.001 imgsz=416` as a mapping; values are YAML. Raises UsageError."""
    options: dict[str, Any] = {}
    for item in text.split():
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise UsageError(
                f"--train-args {item}: not of the form key=value", "for example --train-args 'epochs=20 lr0=0.001'"
            )
        options[key] = _value(value, key)
    return options


def _value(text: str, key: str) -> Any:
    """YAML, but numbers and None as Ultralytics' own command line reads them: 1e-3 is no number in YAML."""
    if text == "None":
        return None
    value = read_yaml(text, Path(f"--train-args {key}"))
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def read_tests(items: Sequence[str]) -> dict[str, Path]:
    """Parse `night=night/data.yaml` …, or a bare path, which gets the name of its folder. Raises UsageError."""
    tests: dict[str, Path] = {}
    for item in items:
        name, sign, path = item.partition("=")
        name, path = (name, path) if sign else (Path(os.path.abspath(item)).parent.name, item)
        if not name or not path or name in tests or os.sep in name:
            raise UsageError(
                f"--test {item}: not of the form name=data.yaml, or the name is taken",
                "for example --test night=real-nights/data.yaml; each test needs a name of its own",
            )
        tests[name] = Path(path)
    return tests


def read_shares(option: str, text: str) -> tuple[float, ...]:
    """`.1,.5` as numbers above 0, up to 1, in order. Raises UsageError, which names the `option`."""
    try:
        values = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        values = ()
    if not values or not 0 < values[0] <= values[-1] <= 1:
        raise UsageError(f"{option} {text}: not numbers above 0, up to 1", f"for example {option} 0.3,0.6,0.9")
    return values
