"""Training schedules for real and synthetic pictures: all mixed, or synthetic first, then real.

The mix is always there. `pretrain-finetune` comes beside it: two stages, the second from the last checkpoint of the first.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from diffgen.errors import UsageError, did_you_mean
from diffgen.output.entries import ExportedImage

MIX, PRETRAIN_FINETUNE = "mix", "pretrain-finetune"
STAGES = MADE, REAL = "made", "real"
STAGE_FILES = frozenset(f"{stage}.{suffix}" for stage in STAGES for suffix in ("yaml", "txt"))

WEIGHTS = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb"}  # how the names of Ultralytics' weights end


def read_schedule(text: str) -> bool:
    """Whether PRETRAIN_FINETUNE is among the words of `--schedule`. Raises UsageError for a word that is no schedule."""
    known = (MIX, PRETRAIN_FINETUNE)
    words = text.split(",")
    if unknown := [word for word in words if word not in known]:
        meant = did_you_mean(unknown[0], known)
        raise UsageError(
            f"--schedule: there is no schedule '{unknown[0]}'{meant}", f"the schedules: {', '.join(known)}"
        )
    return PRETRAIN_FINETUNE in words


def stages_of(images: Iterable[ExportedImage]) -> dict[str, list[str]]:
    """The train pictures of each stage, as paths below the dataset folder."""
    train = [image for image in images if image.split == "train"]
    return {
        MADE: [image.image for image in train if image.entry is not None],
        REAL: [image.image for image in train if image.entry is None],
    }


def require_stages(images: Iterable[ExportedImage]) -> None:
    """Raises UsageError where a stage would have no picture, or one whose name a list cannot hold."""
    for stage, names in stages_of(images).items():
        if not names:
            raise UsageError(
                f"--schedule {PRETRAIN_FINETUNE}: the dataset has no {stage} picture in train",
                "each stage needs pictures: accepted images, and sources (include_sources: copy or link)",
            )
        for name in names:
            if len(name.splitlines()) > 1 or name.encode("utf-8", "ignore").decode() != name:
                raise UsageError(
                    f"--schedule {PRETRAIN_FINETUNE}: {name}: this name cannot be written in an image list",
                    "rename the picture and its label file, then run again",
                )


def list_text(names: Iterable[str]) -> str:
    """A list of pictures as Ultralytics reads it: `./` is the folder of the list."""
    return "".join(f"./{name}\n" for name in names)


def train_command(data: str, task: str, weights: str | None = None) -> str:
    """Ultralytics' command to train on a data.yaml; by default from the smallest weights for the task."""
    words = "" if task == "detect" else f"{task} "
    return f"yolo {words}train data={data} model={weights or f'yolo26n{WEIGHTS[task]}.pt'}"


def stage_commands(folder: Path, task: str) -> list[str]:
    """How to train on the dataset of a run folder, stage by stage. Ultralytics would put a relative `project` elsewhere."""
    run = os.path.abspath(folder)
    first = [f"project={run}-stages", f"name={MADE}", "exist_ok=True"]
    last = f"{run}-stages/{MADE}/weights/last.pt"
    return [
        f"{train_command(shlex.quote(f'{run}/dataset/{MADE}.yaml'), task)} {shlex.join(first)}",
        train_command(shlex.quote(f"{run}/dataset/{REAL}.yaml"), task, shlex.quote(last)),
    ]
