"""How near a run comes to the speed of its model, and how far that is from the loops that people write.

    python -m scripts.bench.speed --dataset driving/day/data.yaml --sources 6 --long-side 640 --write
    python -m scripts.bench.speed --dataset driving/day/data.yaml --only pixels --write
    python -m scripts.bench.speed --configs model-configs/sd-v1-5 --only full --write

`end`: five conditions of each source with the embedded model, each way in turn, several times over different sources; the
ratios are medians over these rounds.

- bare: the model's calls alone, batched as a run batches them. Sources and texts are encoded once; nothing is read,
  measured or written. The speed of light.
- loop: what a user writes: one picture a call, PIL in and out, resized back, saved.
- batched: that loop with as many pictures a call as a run has.
- run: `diffgen run`: planned, read, edited, measured, encoded, committed, exported, with report. The model is loaded before.
- run, detector: the same with a detector that looks at each image.

ciagen 1.0.1 and datadreamer 0.2.3 call their pipelines as the loop does, one picture a call; neither takes an instruction
model, so they have no row of their own.

`pixels`: the run's own work with an editor that takes no time: processor time a picture, and pictures a second on one and on
two cores. `full`: one full-size architecture with random weights, img2img, few steps: the loop, our editor, the bare calls.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from diffgen.dataset.dataset import Dataset, read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import decode
from diffgen.dataset.labels import LabelSchema
from diffgen.editing.editor import EditBatch, Edited
from diffgen.recipe.load import load_recipe
from diffgen.recipe.presets import presets
from diffgen.run.loop import run
from diffgen.run.session import Session
from diffgen.run.worker import Worker
from diffgen.run.worker_setup import Device, load_worker
from diffgen.types import Job, Settings, Source
from scripts.docs.tables import measured, write_table

PAGE = Path("docs/performance.md")
CONDITIONS = ("snow", "night", "fog", "rain", "dusk")
BATCH = 4
Way = Callable[[Dataset, list[Source], Path], None]


def subset(dataset: Dataset, sources: list[Source], folder: Path) -> Path:
    """A dataset of these sources as train, and of one of its own as val, by links."""
    (val, *_) = [source for source in dataset.sources if source.split == "val" and source.problem is None]
    for split, some in (("train", sources), ("val", [val])):
        for source in some:
            for kind, path in (("images", Path(source.path)), ("labels", Path(str(source.label)))):
                place = folder / kind / split / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path.resolve())
    fields = {"train": "images/train", "val": "images/val", "names": list(dataset.names)}
    data = folder / "data.yaml"
    data.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return data


class Ways:
    """The ways to edit sources under CONDITIONS with one loaded pipeline."""

    def __init__(self, worker: Worker, long_side: int, threads: int, device: str, detector: Path | None) -> None:
        self._worker, self._long_side, self._threads, self._device = worker, long_side, threads, device
        self._detector = detector
        editor: Any = worker._engine._editor
        self._editor, self._pipe = editor, editor._pipe
        self.spent: float | None = None
        self._prompts = [
            presets()[name]["prompt"].replace("{objects}", "cars") + ", severity 65" for name in CONDITIONS
        ]

    def ways(self) -> dict[str, Way]:
        found: dict[str, Way] = {"bare": self.bare, "loop": self.loop, "batched": self.batched, "run": self.whole}
        return found | ({"run, detector": self.looked_at} if self._detector else {})

    def _sized(self, source: Source) -> tuple[int, int]:
        scale = self._long_side / max(source.width, source.height)
        return tuple(round(side * scale / 32) * 32 for side in (source.width, source.height))  # type: ignore[return-value]

    def _call(self, images: list[Image.Image], prompts: list[str]) -> list[Image.Image]:
        made = self._pipe(
            prompt=prompts, image=images, num_inference_steps=1, guidance_scale=1.0, image_guidance_scale=1.0
        )
        return list(made.images)

    @contextmanager
    def _as_stock(self) -> Iterator[None]:
        """The pipeline's own method back in place of ours, in the memory layout that it is loaded in."""
        import torch

        ours = self._pipe.prepare_image_latents
        del self._pipe.prepare_image_latents
        for part in (self._pipe.unet, self._pipe.vae):
            part.to(memory_format=torch.contiguous_format)
        try:
            yield
        finally:
            self._pipe.prepare_image_latents = ours
            for part in (self._pipe.unet, self._pipe.vae):
                part.to(memory_format=torch.channels_last)

    def loop(self, _: Dataset, sources: list[Source], folder: Path, size: int = 1) -> None:
        with self._as_stock():
            for i, prompt in enumerate(self._prompts):
                for first in range(0, len(sources), size):
                    some = sources[first : first + size]
                    opened = [Image.open(source.path).convert("RGB") for source in some]
                    images = [image.resize(self._sized(s)) for image, s in zip(opened, some, strict=True)]
                    for made, source in zip(self._call(images, [prompt] * len(some)), some, strict=True):
                        made.resize((source.width, source.height)).save(
                            folder / f"{Path(source.path).stem}-{i}.jpg", quality=95
                        )

    def batched(self, dataset: Dataset, sources: list[Source], folder: Path) -> None:
        self.loop(dataset, sources, folder, BATCH)

    def bare(self, _: Dataset, sources: list[Source], __: Path) -> None:
        import torch

        codec, unet = self._editor._codec, self._pipe.unet
        with torch.inference_mode():
            texts = [self._pipe._encode_prompt(text, self._pipe.device, 1, False) for text in self._prompts]
            pixels = [np.array(Image.open(s.path).convert("RGB").resize(self._sized(s))) for s in sources]
            latents = [codec._encode(image[None]) for image in pixels]
            time_step = torch.tensor([999], device=self._pipe.device)
            for text in texts:
                for first in range(0, len(latents), BATCH):
                    some = torch.cat(latents[first : first + BATCH])
                    noisy = torch.cat([torch.randn_like(some), some], 1).to(unet.dtype)
                    edited = unet(noisy, time_step, text.expand(len(some), -1, -1)).sample.float()
                    codec.decode(edited)

    def whole(self, dataset: Dataset, sources: list[Source], folder: Path, **fields: Any) -> None:
        data = subset(dataset, sources, folder / "data")
        recipe = folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({
            "dataset": str(data), "output": "out", "conditions": list(CONDITIONS), "batch_size": BATCH,
            "resolution": {"long_side": self._long_side}, "device": self._device, "select": {"splits": ["train"]}, **fields,
        }), encoding="utf-8")  # fmt: skip
        worker = self._worker
        if fields:
            loaded = Session.open(load_recipe(recipe)).fetched()
            worker = load_worker(loaded.model, Device(self._device, "float32", self._threads), loaded.dataset)
        started = time.perf_counter()
        summary = run(load_recipe(recipe), make_worker=lambda: worker)
        self.spent = time.perf_counter() - started
        assert summary.made_now == len(sources) * len(CONDITIONS), summary

    def looked_at(self, dataset: Dataset, sources: list[Source], folder: Path) -> None:
        self.whole(dataset, sources, folder, detector=str(Path(str(self._detector)).resolve()))


def end_to_end(args: argparse.Namespace) -> str:
    """Markdown: each way's seconds a picture, and its ratio to the bare calls and to the loop."""
    import torch

    with FileCache() as cache:
        dataset = read_dataset(str(args.dataset.resolve()), Path.cwd(), cache)
    sources = [s for s in dataset.sources if s.split == "train" and s.problem is None and isinstance(s.label, str)]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        first = Path(name, "first")
        first.mkdir()
        recipe = first / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({
            "dataset": str(args.dataset.resolve()), "output": "out", "conditions": list(CONDITIONS), "device": args.device,
            "resolution": {"long_side": args.long_side},
        }), encoding="utf-8")  # fmt: skip
        session = Session.open(load_recipe(recipe))
        dtype = "float16" if args.device.startswith("cuda") else "float32"
        worker = load_worker(session.model, Device(args.device, dtype, threads), session.dataset)
        ways = Ways(worker, args.long_side, threads, args.device, args.detector)
        seconds: dict[str, list[float]] = {way: [] for way in ways.ways()}
        for round_number in range(args.rounds + 1):  # the first warms up
            some = sources[round_number * args.sources : (round_number + 1) * args.sources]
            for way, go in ways.ways().items():
                folder = Path(name, f"{round_number}-{way}")
                folder.mkdir()
                ways.spent = None
                started = time.perf_counter()
                go(dataset, some, folder)
                spent = ways.spent or time.perf_counter() - started
                if round_number:
                    seconds[way].append(spent / (len(some) * len(CONDITIONS)))
                print(f"{round_number} {way}: {spent:.1f} s", file=sys.stderr, flush=True)
    lines = ["| way | seconds a picture | speed, of the bare calls | of the loop |", "|---|---|---|---|"]
    for way, values in seconds.items():
        of = [
            statistics.median(b / a for a, b in zip(values, seconds[other], strict=True)) for other in ("bare", "loop")
        ]
        lines.append(f"| {way} | {statistics.median(values):.3f} | {of[0]:.2f} | {of[1]:.2f} |")
    about = f"{args.rounds} rounds of {args.sources} sources of 1280 × 720 × {len(CONDITIONS)} conditions"
    return "\n".join([*lines, "", measured(f"{about}, batches of {BATCH}, pocket at {args.long_side} px")])


class Instant:
    """An editor that takes no time: it gives the pictures back."""

    def edit(self, batch: EditBatch) -> list[Any]:
        return [Edited(255 - image, batch.settings.strength) for image in batch.images]

    def round_trip(self, image: Any) -> Any:
        return image


def pixels(args: argparse.Namespace) -> str:
    """Markdown: processor time a picture, and pictures a second by cores."""
    with FileCache() as cache:
        dataset = read_dataset(str(args.dataset.resolve()), Path.cwd(), cache)
    sources = [s for s in dataset.sources if s.split == "train" and s.problem is None and isinstance(s.label, str)]
    speeds: dict[int, float] = {}
    spent: list[float] = []
    own = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        data = subset(dataset, sources[: 4 * args.sources], Path(name, "data"))
        recipe = Path(name, "recipe.yaml")
        for cores in (1, 2) if len(own) > 1 else (1,):
            os.sched_setaffinity(0, set(sorted(own)[:cores]))
            for round_number in range(args.rounds):
                recipe.write_text(yaml.safe_dump({
                    "dataset": str(data), "output": f"out-{cores}-{round_number}", "conditions": list(CONDITIONS),
                    "batch_size": 16, "resolution": {"long_side": args.long_side},
                }), encoding="utf-8")  # fmt: skip
                worker = Worker(Instant(), LabelSchema(dataset.names), {"device": "none"})
                before = time.process_time()
                summary = run(load_recipe(recipe), make_worker=lambda worker=worker: worker, export=False)  # type: ignore[misc]
                assert summary.speed is not None
                spent.append((time.process_time() - before) / summary.made_now)
                speeds[cores] = max(speeds.get(cores, 0.0), summary.speed["images_per_second"])
        os.sched_setaffinity(0, own)
    lines = ["| | |", "|---|---|", f"| processor time a picture | {1e3 * statistics.median(spent):.0f} ms |"]
    lines += [f"| pictures a second on {cores} cores | {speed:.1f} |" for cores, speed in speeds.items()]
    if len(speeds) > 1:
        # Amdahl's law: of the time on one core, what does not become less with the second is serial.
        serial = max(0.0, 2 * speeds[1] / speeds[2] - 1)
        more = speeds[1] / (serial + (1 - serial) / 16)
        lines.append(f"| of it serial, by Amdahl's law from these two | {serial:.0%} |")
        lines.append(f"| on 16 cores, by that law | {more:.0f} |")
    about = f"{4 * args.sources} sources of 1280 × 720 × {len(CONDITIONS)} conditions, working size {args.long_side} px"
    return "\n".join([*lines, "", measured(about)])


def full(args: argparse.Namespace) -> str:
    """Markdown: a full-size architecture with random weights, by the loop, by our editor and by the bare calls."""
    import diffusers
    import torch
    import transformers

    from diffgen.editing.families.img2img import Img2Img

    folder, size, steps, count = args.configs, 512, 2, 2
    index = yaml.safe_load((folder / "model_index.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    parts: dict[str, Any] = {}
    for part, (library, cls) in ((k, v) for k, v in index.items() if isinstance(v, list) and v[0]):
        kind = getattr(diffusers if library == "diffusers" else transformers, cls, None)
        if part in ("safety_checker", "feature_extractor") or kind is None:
            parts[part] = None
        elif hasattr(kind, "from_config") and library == "diffusers":
            parts[part] = kind.from_config(kind.load_config(folder / part))
        elif "Tokenizer" in cls:
            parts[part] = kind.from_pretrained(folder / part)
        else:
            parts[part] = kind(transformers.AutoConfig.from_pretrained(folder / part))
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(args.device)
    images = [decode(path.read_bytes()) for path in sorted(args.pictures.rglob("*.jpg"))[:count]]
    square = [np.asarray(Image.fromarray(image).resize((size, size))) for image in images]
    seconds = {}

    def timed(name: str, go: Callable[[], Any]) -> None:
        started = time.perf_counter()
        go()
        seconds[name] = (time.perf_counter() - started) / count

    strength = 0.5
    timed("loop", lambda: [
        pipe(prompt="snow", image=Image.fromarray(image), strength=strength, num_inference_steps=round(steps / strength),
             guidance_scale=5.0)
        for image in square
    ])  # fmt: skip
    editor = Img2Img(pipe)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    settings = Settings("img2img", "random", "snow", strength, steps, 5.0, size, 8, "png", None, native=size)
    jobs = [Job(f"{i:064}", settings, "snow", None, i) for i in range(count)]
    timed("diffgen's editor", lambda: editor.edit(EditBatch(square, jobs)))

    def bare() -> None:
        with torch.inference_mode():
            latents = torch.cat([editor._codec._encode(image[None].copy()) for image in square])
            text = torch.randn(2 * count, 77, pipe.unet.config.cross_attention_dim)
            for _ in range(steps):
                pipe.unet(torch.cat([latents, latents]), torch.tensor([500]), text)
            editor._codec.decode(latents)

    timed("bare", bare)
    lines = ["| way | seconds a picture | of the bare calls |", "|---|---|---|"]
    lines += [f"| {name} | {value:.1f} | {seconds['bare'] / value:.2f} |" for name, value in seconds.items()]
    about = f"{folder.name} with random weights, {size} × {size}, {steps} steps with guidance, {count} pictures at once"
    return "\n".join([*lines, "", measured(about)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--configs", type=Path, help="folder of a pipeline's configs, for `full`")
    parser.add_argument("--pictures", type=Path, help="folder of pictures, for `full`")
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("pixels", "end", "full"))
    parser.add_argument("--write", action="store_true", help="the tables into docs/performance.md")
    args = parser.parse_args()
    parts = {"pixels": pixels, "end": end_to_end, "full": full}
    for name, part in parts.items():
        if args.only not in (None, name) or (name == "full" and args.configs is None):
            continue
        text = part(args)
        print(f"{name}\n\n{text}\n")
        if args.write:
            write_table(PAGE, name, text, "scripts.bench.speed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
