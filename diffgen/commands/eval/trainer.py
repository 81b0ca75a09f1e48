"""Trains a detector and lets it look at test sets: `python -m diffgen.commands.eval.trainer JOB.json`.

In a process of its own, because Ultralytics changes the process it runs in, and because a killed one costs one training.
It ends with its parent. The job is JSON: `weights`, `device`, `size` (px); to train, `data` (a data.yaml), `seed`, `options`
and `last` (where the last checkpoint goes); to look, `tests` (name -> data.yaml), `results` (where what was found goes) and
`own` (whether the weights have the tests' classes, so that Ultralytics' own figures mean something).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from diffgen.checks.detectors.ultralytics import process_state_restored
from diffgen.files import write_atomically

LEAST_SCORE = 0.001  # as Ultralytics' own validation


def main(path: Path) -> None:
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    job = json.loads(path.read_text("utf-8"))
    with process_state_restored(), tempfile.TemporaryDirectory() as folder:
        if "data" in job:
            _train(job, Path(folder))
        if job["tests"]:
            _look(job, Path(folder))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _train(job: dict[str, Any], folder: Path) -> None:
    """Leaves the last checkpoint, which no validation has chosen, at `last`."""
    from ultralytics import YOLO

    model = YOLO(job["weights"])
    model.train(
        **job["options"],
        data=job["data"],
        imgsz=job["size"],
        seed=job["seed"],
        device=job["device"],
        project=str(folder),
        name="training",
        val=False,
        plots=False,
        deterministic=True,
    )
    last = Path(job["last"])
    part = last.with_suffix(".part")
    shutil.copy(folder / "training/weights/last.pt", part)
    os.replace(part, last)


def _look(job: dict[str, Any], folder: Path) -> None:
    """Writes, by test: Ultralytics' own figures, and by picture rows of class id, score, x0, y0, x1, y1 in pixels."""
    from ultralytics import YOLO

    model = YOLO(job["last"] if "data" in job else job["weights"])
    shared = {"imgsz": job["size"], "device": job["device"], "project": str(folder), "verbose": False, "plots": False}
    found: dict[str, Any] = {}
    for name, data in job["tests"].items():
        rows = {}
        for picture in sorted((Path(data).parent / "images/val").iterdir()):
            (seen,) = model.predict(
                str(picture), conf=LEAST_SCORE, imgsz=job["size"], device=job["device"], verbose=False, save=False
            )
            boxes = zip(seen.boxes.cls.tolist(), seen.boxes.conf.tolist(), seen.boxes.xyxy.tolist(), strict=True)
            rows[picture.stem] = [[int(c), round(s, 5), *(round(v, 2) for v in box)] for c, s, box in boxes]
        found[name] = {"names": [str(model.names[i]) for i in sorted(model.names)], "detections": rows}
        if job["own"]:
            own = model.val(data=data, split="val", name=f"val-{name}", workers=0, **shared).box
            found[name]["ultralytics"] = {"ap50": float(own.map50), "ap": float(own.map)}
    write_atomically(Path(job["results"]), json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
