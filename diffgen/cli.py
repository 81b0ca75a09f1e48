"""The command line: parse, call one function, print, exit code. stdout is data, stderr is logs and progress.

Longer than other files because the help of every command is written here.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from diffgen.errors import DiffgenError, printable, why
from diffgen.version import __version__

if TYPE_CHECKING:
    from diffgen.recipe.load import LoadedRecipe
    from diffgen.run.summary import Summary

# Click's UsageError, from whichever Click typer uses: its own copy or the installed one.
_ClickUsageError: Any = typer.BadParameter.__base__


class _Command(TyperCommand):
    """Writes arguments in the usage line as the help does, without braces."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class _Group(TyperGroup):
    """Lists commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


ORDER = (
    "init", "plan", "preview", "run", "status", "verify", "export", "clean", "reproduce", "tune", "eval", "stress",
    "models", "conditions", "schema", "doctor",
)  # fmt: skip
app = typer.Typer(
    name="diffgen",
    cls=_Group,
    help="Edit the photographs of a labelled dataset so that the condition changes and every label stays true.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command = partial(app.command, cls=_Command)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, or the folder of a run.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key, e.g. conditions.night.strength=0.5. Repeatable."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="The run folder; replaces the recipe's output.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first N sources of each edited split.")]
Confined = Annotated[
    bool, typer.Option("--confined", help="Refuse a dataset whose paths or links lead out of its folders.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"diffgen {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    warnings.filterwarnings("ignore", module="PIL")  # Pillow's remarks on odd images: we count those ourselves


@command(short_help="Make the missing images, check them, write the dataset.")
def run(
    recipe: RecipePath,
    output: Output = None,
    limit: Limit = None,
    sets: Sets = None,
    device: Device = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this long (exit code 4); run again to resume.")
    ] = None,
    remake: Annotated[
        bool,
        typer.Option("--remake", help="Replace images of an older diffgen that this version would edit differently."),
    ] = False,
    confined: Confined = False,
    gpus: Annotated[
        str | None, typer.Option(help="all, or GPU numbers such as 0,1: one worker process per GPU.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of worker processes on this machine.")] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Make part I of N of the images, for array jobs; see docs/scale.md."),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(metavar="ray", help="Run on a Ray cluster: one worker per GPU, or --workers N."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster. Default: start Ray on this machine.")
    ] = None,
    as_worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print the time of each part of the work on stderr.")
    ] = False,
    as_json: AsJson = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print a line for every image, with its verdict.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
) -> None:
    """Make the recipe's missing images, check them, and write the dataset.

    Example: diffgen run configs/winter.yaml --limit 20
    """
    from diffgen.run import loop, together
    from diffgen.run.part import only_one, read_shard, read_worker, require_ray
    from diffgen.run.progress import choose

    only_one({"--gpus": gpus, "--workers": workers, "--shard": shard})
    only_one({"--gpus": gpus, "--shard": shard, "--executor": executor})
    require_ray(executor, address)
    loaded = _load(recipe, sets, output, device)
    notify = (lambda _: None) if quiet else _notify
    options: dict[str, Any] = {
        "limit": limit,
        "max_minutes": max_minutes,
        "progress": choose(quiet, as_json, often=as_worker is not None),
        "notify": notify,
        "confined": confined,
        "remake": remake,
    }
    if executor is not None:
        shared = {key: options[key] for key in ("limit", "confined", "remake")}
        summary = together.run_together(loaded, together.over_ray(loaded, address, workers, shared), **options)
    elif gpus is not None or workers is not None:
        numbers = None if gpus is None else together.gpu_numbers(gpus)
        given = [str(recipe), "--output", str(loaded.output), *(f"--set={text}" for text in sets or ())]
        given += [*([] if limit is None else [f"--limit={limit}"]), *(["--remake"] if remake else [])]
        given += [] if device is None else [f"--device={device}"]
        summary = together.run_together(loaded, together.as_processes(given, workers or 0, numbers), **options)
    else:
        part = read_shard(shard) if shard else read_worker(as_worker) if as_worker else None
        each = _notify if verbose else (lambda _: None)
        summary = loop.run(loaded, **options, each=each, part=part)
    if profile and summary.speed is not None:
        from diffgen.run.timings import profile_text

        _notify(profile_text(summary.speed))
    _report(summary, as_json, quiet)
    raise typer.Exit(summary.exit_code)


@command(short_help="What a run would do. Makes nothing.")
def plan(
    recipe: RecipePath,
    output: Output = None,
    limit: Limit = None,
    sets: Sets = None,
    look: Annotated[
        bool | None,
        typer.Option(
            "--look/--no-look", help="Look for near-duplicates across splits. Default: yes up to 5000 sources."
        ),
    ] = None,
    confined: Confined = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do: counts, sources not edited and why, small boxes, disk and time. Makes nothing.

    Example: diffgen plan configs/winter.yaml --json
    """
    from diffgen.commands.plan_summary import plan_facts, plan_text

    _print(plan_facts(_load(recipe, sets, output), limit, look, confined=confined), plan_text, as_json)


@command(name="eval", short_help="Does the dataset help a detector?")
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    model: Annotated[
        Path, typer.Option("--model", metavar="WEIGHTS", help="Weights that each training starts from: a .pt file.")
    ],
    test: Annotated[
        list[str],
        typer.Option(
            "--test",
            metavar="NAME=DATA.YAML",
            help="A labelled real dataset; its val split is the test set. Repeatable.",
        ),
    ],
    oracle: Annotated[
        Path | None,
        typer.Option(help="data.yaml whose train split has real pictures of the condition: the upper bound."),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Folder of unlabelled pictures; the rules arm copies their histograms.")
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(help="Some of real,rules,unchecked,checked,oracle. Default: all; oracle only with --oracle."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per arm; fewer than 6 can show nothing.")] = 8,
    train_args: Annotated[
        str,
        typer.Option(
            "--train-args", help="Options of Ultralytics' train, e.g. 'epochs=20 imgsz=640 batch=16 lr0=0.001'."
        ),
    ] = "",
    most: Annotated[int | None, typer.Option(min=1, help="Add at most N pictures to the real ones.")] = None,
    ratio: Annotated[
        str | None,
        typer.Option(help="Extra arms with fewer synthetic images, as a ratio to the real ones, e.g. .1,.25,.5."),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="mix,pretrain-finetune adds an arm: synthetic images first, then the real ones.")
    ] = "mix",
    classes: Annotated[str | None, typer.Option(help="Measure only these classes, separated by commas.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or GPU numbers such as 0,1. Default: all GPUs.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the evaluation. [default: RUN-eval]")
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this long (exit code 4).")] = None,
    require: Annotated[str | None, typer.Option(help="shown: exit code 3 unless the verdict is shown.")] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Print the number of trainings; train nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Does the run's dataset help a detector? Trains with and without it, equally long, over several seeds.

    Example: diffgen eval runs/winter --model yolo26n.pt --test winter=real/data.yaml
    """
    from diffgen.commands.eval import evaluate as evaluation
    from diffgen.commands.eval import request as asked
    from diffgen.commands.eval.page import results_text
    from diffgen.commands.eval.prepare import prepare
    from diffgen.output.schedule import read_schedule

    request = asked.EvalRequest(
        run=run_folder,
        weights=model,
        tests=asked.read_tests(test),
        arms=None if arms is None else tuple(arms.split(",")),
        staged=read_schedule(schedule),
        oracle=oracle,
        targets=target,
        seeds=seeds,
        options=asked.read_options(train_args),
        devices=asked.default_devices() if device is None else tuple(device.split(",")),
        classes=None if classes is None else tuple(name.strip() for name in classes.split(",")),
        most=most,
        ratios=() if ratio is None else asked.read_shares("--ratio", ratio),
        folder=output,
        require=require,
    )
    prepared = prepare(request)
    if plan_only:
        _print(evaluation.plan_facts(prepared), evaluation.plan_text, as_json)
        return
    facts = evaluation.evaluate(prepared, max_minutes=max_minutes, notify=_notify)
    _print(facts, results_text, as_json)
    raise typer.Exit(facts["exit_code"])


@command(short_help="Where does a detector fail?")
def stress(
    model: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The detector: a .pt file.")],
    recipe: Annotated[
        Path, typer.Option("--recipe", metavar="RECIPE", help="Recipe with the conditions and the editing model.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATA.YAML", help="Dataset whose val split is edited. [default: the recipe's]"),
    ] = None,
    severities: Annotated[
        str, typer.Option(help="Strengths of each condition, separated by commas.")
    ] = "0.2,0.4,0.6,0.8,1",
    limit: Limit = None,
    imgsz: Annotated[int, typer.Option(min=32, help="Image size of the detector, in pixels.")] = 640,
    fail_under: Annotated[
        str | None,
        typer.Option(metavar="map50=N", help="Exit code 3 if any condition's AP50 is below N at any severity."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the detector: cpu, or the number of a GPU.")] = "cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results. [default: OUTPUT-stress]")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Where does a detector fail? Edits val under each condition at each severity and counts lost detections.

    Example: diffgen stress best.pt --recipe configs/winter.yaml --fail-under map50=0.4
    """
    from diffgen.commands.eval.request import read_shares
    from diffgen.commands.stress.page import stress_text
    from diffgen.commands.stress.stress import StressRequest, read_fail_under
    from diffgen.commands.stress.stress import stress as run_stress
    from diffgen.run.progress import choose

    request = StressRequest(
        recipe=_load(recipe, sets, None),
        weights=model,
        data=data,
        severities=read_shares("--severities", severities),
        limit=limit,
        size=imgsz,
        device=device,
        folder=output,
        fail_under=None if fail_under is None else read_fail_under(fail_under),
    )
    facts = run_stress(request, progress=choose(False, as_json), notify=_notify)
    _print(facts, stress_text, as_json)
    raise typer.Exit(facts["exit_code"])


@command(short_help="Find settings that match your own night, fog or snow.")
def tune(
    recipe: RecipePath,
    target: Annotated[
        Path,
        typer.Option(
            "--target", metavar="DIR", help="Unlabelled pictures of the condition: a folder or a glob pattern."
        ),
    ],
    recall: Annotated[
        float,
        typer.Option(min=0, max=1, help="Minimum share of the labelled objects that the detector must still find."),
    ] = 0.9,
    budget: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 200,
    sources: Annotated[int, typer.Option(min=2, help="Pictures edited in each trial.")] = 24,
    size: Annotated[int, typer.Option(min=64, help="Long side in pixels while searching.")] = 320,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The tuned recipe. [default: beside RECIPE, NAME-tuned.yaml]")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Find the settings whose edits look most like your own pictures of a condition, while labels stay true.

    Example: diffgen tune configs/night.yaml --target my-nights/ --recall 0.9
    """
    from diffgen.commands.tune.page import tune_text
    from diffgen.commands.tune.tune import TuneRequest
    from diffgen.commands.tune.tune import tune as run_tune

    request = TuneRequest(_load(recipe, sets, None), target, recall, budget, sources, size, output)
    facts = run_tune(request, notify=_notify)
    _print(facts, tune_text, as_json)
    raise typer.Exit(facts["exit_code"])


@command(short_help="What a run folder holds; works during a run.")
def status(run_folder: RecipePath, as_json: AsJson = False) -> None:
    """Show what a run folder holds: accepted, rejected by reason, failed, still to make. Works during a run.

    Example: diffgen status runs/winter --json
    """
    from diffgen.commands.status import status as read_status
    from diffgen.run.summary import summary_text

    summary = read_status(_load(run_folder))
    _print(summary.to_dict(), lambda _: summary_text(summary), as_json)


@command(short_help="A few images beside their sources, in one picture.")
def preview(
    recipe: RecipePath,
    number: Annotated[int, typer.Option("-n", min=1, help="How many sources.")] = 4,
    conditions: Annotated[
        list[str] | None, typer.Option("--condition", help="Only this condition. Repeatable.")
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", metavar="FIELD=VALUES", help="One column per value, e.g. strength=0.3,0.5. Repeatable."
        ),
    ] = None,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Show the denoising steps instead, one row per image.")
    ] = False,
    output: Output = None,
    sets: Sets = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a few images, draw them beside their sources with boxes and scores, and print the path of that picture.

    A later run keeps these images. Swept images are extra: `diffgen clean` deletes them.

    Example: diffgen preview configs/winter.yaml -n 2 --sweep strength=0.3,0.5,0.7
    """
    from diffgen.commands import preview as previews
    from diffgen.commands import trajectory as trajectories
    from diffgen.commands.sweeps import PreviewRequest, read_sweep
    from diffgen.run.progress import choose

    loaded = _load(recipe, sets, output, device)
    request = PreviewRequest(number, tuple(conditions or ()), tuple(read_sweep(text) for text in sweeps or ()))

    if trajectory:
        path = trajectories.preview_trajectory(loaded, request, notify=_notify)
        typer.echo(json.dumps({"trajectory": str(path)}) if as_json else path)
        return
    drawn = previews.preview(loaded, request, progress=choose(False, as_json), notify=_notify)
    if as_json:
        typer.echo(json.dumps(drawn.to_dict(), indent=1))
    elif drawn.path is not None:
        typer.echo(drawn.path)
    raise typer.Exit(drawn.exit_code)


@command(short_help="Make one image again and compare the bytes.")
def reproduce(
    run_folder: RecipePath,
    job: Annotated[str, typer.Argument(metavar="JOB_ID", help="The id of an image, or the start of it.")],
    keep: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the image to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one image again and show whether it is byte-identical, and if not, what differs. Exit code 3: it differs.

    Example: diffgen reproduce runs/winter 3fa9c1
    """
    from diffgen.commands.reproduce import reproduce as make_again
    from diffgen.commands.reproduce import reproduction_text

    result = make_again(_load(run_folder), job, keep=keep, notify=_notify)
    _print(result.to_dict(), lambda _: reproduction_text(result), as_json)
    raise typer.Exit(result.exit_code)


@command(short_help="Judge the images again and rewrite the dataset.")
def export(
    run_folder: RecipePath,
    sets: Sets = None,
    review: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Decisions saved by report.html; the run folder keeps a copy."),
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="Maximum number of synthetic images per real one; short for --set ratio=N.")
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(help="pretrain-finetune adds data files to train on synthetic images first, then on real ones."),
    ] = "mix",
    as_json: AsJson = False,
) -> None:
    """Judge the images again, with new thresholds if you like, and rewrite the dataset. Makes no images.

    Example: diffgen export runs/winter --set checks.structure=0.4
    """
    from diffgen.commands.export import export as export_again
    from diffgen.files import shown
    from diffgen.output.schedule import read_schedule, stage_commands

    overrides = [*(sets or []), *([] if ratio is None else [f"ratio={ratio}"])]
    staged = read_schedule(schedule)
    summary = export_again(_load(run_folder, overrides), review, staged=staged)
    if overrides:
        _notify(f"the changed keys are kept in {shown(summary.output)}/recipe.yaml until the next run of your recipe")
    stages = stage_commands(Path(summary.output), summary.task) if staged and not summary.empty else []
    _report(summary, as_json, stages=stages)
    raise typer.Exit(summary.export_code)


@command(short_help="Check every file of a run folder for damage.")
def verify(
    run_folder: RecipePath,
    repair: Annotated[bool, typer.Option("--repair", help="Remake what is damaged, as `run` does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every record, image and label of a run folder and name what is damaged. Exit code 1: damage found.

    Example: diffgen verify runs/winter --repair
    """
    from diffgen.commands.verify import forget, verification_text
    from diffgen.commands.verify import verify as read_all
    from diffgen.run import loop
    from diffgen.run.progress import choose
    from diffgen.run.store.state import read_state

    loaded = _load(run_folder)
    found = read_all(loaded, _notify)
    if found.whole or not repair:
        _print(found.to_dict(), lambda _: verification_text(found), as_json)
        raise typer.Exit(0 if found.whole else 1)
    for line in verification_text(found).splitlines()[:-1]:  # not the last: it says to repair
        _notify(line)
    forget(found, loaded)
    limit = read_state(loaded.output).get("limit")
    summary = loop.run(loaded, limit=limit, progress=choose(False, as_json), notify=_notify)
    _report(summary, as_json)
    raise typer.Exit(summary.exit_code)


@command(short_help="Delete images that the recipe no longer plans.")
def clean(
    run_folder: RecipePath,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without this, only show what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete images that a run folder's recipe no longer plans (their condition was removed or their source changed).

    Example: diffgen clean runs/winter --yes
    """
    from diffgen.commands.clean import clean as drop_stale

    images, size = drop_stale(_load(run_folder), remove=yes, notify=_notify)
    done = "deleted" if yes else "are no longer planned; --yes deletes them"
    facts = {"images": images, "bytes": size, "deleted": yes}
    text = f"{images} images, {size / 1e6:.1f} MB {done}" if images else "nothing to delete"
    _print(facts, lambda _: text, as_json)


@command(short_help="The preset conditions.")
def conditions(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one preset in full, as YAML.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the preset conditions, or show one.

    Example: diffgen conditions night
    """
    from diffgen.commands.catalogue import condition_facts, condition_text, conditions_text
    from diffgen.recipe.presets import presets

    if name is None:
        _print(presets(), lambda _: conditions_text(), as_json)
    else:
        _print(condition_facts(name), condition_text, as_json)


class _OrName(TyperGroup):
    """`diffgen models NAME` is short for `diffgen models show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


models_app = typer.Typer(cls=_OrName, invoke_without_command=True, no_args_is_help=False, rich_markup_mode=None)
app.add_typer(models_app, name="models")


@models_app.callback(short_help="The models that have a short name.")
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models that have a short name (licence, size, whether they are downloaded), or show one.

    Example: diffgen models pocket
    """
    from diffgen.commands.catalogue import models_text
    from diffgen.dataset.file_cache import FileCache
    from diffgen.models.find import model_rows

    if context.invoked_subcommand is not None:
        context.obj = as_json  # `models --json NAME`
        return
    with FileCache() as cache:
        _print(model_rows(cache), models_text, as_json)


@models_app.command("show", cls=_Command, short_help="A model's class and defaults.")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A short name, a hub id, a folder or a file.")],
    as_json: AsJson = False,
) -> None:
    """Show a model's class and defaults; for a model with a small vocabulary also the conditions it knows.

    Example: diffgen models show pocket
    """
    from diffgen.commands.catalogue import model_facts, model_text

    _print(model_facts(name), model_text, as_json or context.obj)


@models_app.command("pull", cls=_Command, short_help="Download a model, or all that a recipe needs.")
def pull(
    name: Annotated[
        str,
        typer.Argument(help="A short name (see diffgen models), a hub id, or a recipe (fetches all that it needs)."),
    ],
    as_json: AsJson = False,
) -> None:
    """Download a model from the Hugging Face Hub at its newest commit, so that a run needs no network.

    Example: diffgen models pull sd-turbo
    """
    from diffgen.commands.pull import pull as fetch
    from diffgen.commands.pull import pulled_text

    _print(fetch(name), pulled_text, as_json)


@command(short_help="Write a recipe, a Makefile fragment and CI jobs.")
def init(
    dataset: Annotated[
        Path, typer.Argument(metavar="[DATASET]", help="The folder of your dataset, or its data.yaml or COCO file.")
    ] = Path(),
    recipe: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The recipe to write; the other files go beside it.")
    ] = Path("diffgen.yaml"),
    slurm: Annotated[bool, typer.Option("--slurm", help="Also write an array job for Slurm.")] = False,
    k8s: Annotated[bool, typer.Option("--k8s", help="Also write an indexed job for Kubernetes.")] = False,
    sky: Annotated[bool, typer.Option("--sky", help="Also write a job for SkyPilot.")] = False,
    shards: Annotated[int, typer.Option(min=1, max=10000, help="Number of shards in these jobs.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe for your dataset, a Makefile fragment and CI jobs. Run them from this folder.

    Example: diffgen init data/street -o configs/street.yaml
    """
    from diffgen.commands.init import write_starter

    asks = sys.stdin is not None and sys.stdin.isatty() and not as_json
    clusters = [name for name, wanted in (("slurm", slurm), ("k8s", k8s), ("sky", sky)) if wanted]
    written = [
        str(path) for path in write_starter(dataset, recipe, _choose if asks else None, clusters, shards, _notify)
    ]
    text = "\n".join([*(f"wrote {path}" for path in written), f"next: diffgen plan {written[0]}"])
    _print({"written": written}, lambda _: text, as_json)


@command(short_help="What this machine has and what a run would use.")
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Show what a run of this recipe would use.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine has and what a run would use: versions, device, memory, model. Exit code 1: a problem.

    Example: diffgen doctor configs/winter.yaml
    """
    from diffgen.commands.doctor import examination_text, examine

    facts = examine(_load(recipe) if recipe else None)
    _print(facts, examination_text, as_json)
    raise typer.Exit(1 if facts["problems"] else 0)


@command(short_help="The JSON Schema of a recipe.")
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors and CI.

    Example: diffgen schema > recipe.schema.json
    """
    from diffgen.recipe.schema import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=1))


def _choose(lines: list[str]) -> int:
    """Ask the user to choose one of the lines; return its index."""
    for number, line in enumerate(lines, 1):
        _notify(f"{number}  {line}")
    answer = 0
    while not 1 <= answer <= len(lines):
        answer = int(typer.prompt("which dataset", type=int, err=True))
    return answer - 1


def _load(
    recipe: Path, sets: list[str] | None = None, output: Path | None = None, device: str | None = None
) -> LoadedRecipe:
    from diffgen.recipe.load import load_recipe

    return load_recipe(recipe, sets or [], output, device)


def _print(facts: Any, text: Callable[[Any], str], as_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=1) if as_json else printable(text(facts), "\n"))


def _notify(line: str) -> None:
    typer.echo(printable(line), err=True)


def _report(summary: Summary, as_json: bool, quiet: bool = False, stages: Sequence[str] = ()) -> None:
    """Print the summary, and the commands that train in stages, if any."""
    from diffgen.run.summary import summary_text

    try:
        if as_json or not quiet:
            facts = {**summary.to_dict(), **({"stages": stages} if stages else {})}
            _print(facts, lambda _: "\n".join([summary_text(summary), *stages]), as_json)
    except OSError as error:  # the work is done, so its exit code stands
        _notify(f"error: standard output: {why(error)}; 'diffgen status {summary.output}' prints it again")


def _print_json_error(message: str, hint: str | None, exit_code: int) -> None:
    """With --json, print an error on stdout in place of the facts."""
    typer.echo(json.dumps({"error": message, "hint": hint, "exit_code": exit_code}))


def _print_error(error: DiffgenError, as_json: bool) -> int:
    if as_json:
        _print_json_error(error.message, error.hint, error.exit_code)
    typer.echo(f"error: {printable(error.message)}", err=True)
    if error.hint:
        typer.echo(f"hint: {printable(error.hint)}", err=True)
    return error.exit_code


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    try:
        return int(app(arguments, prog_name="diffgen", standalone_mode=False) or 0)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except _ClickUsageError as error:
        if as_json:
            _print_json_error(error.format_message(), "--help lists the options", error.exit_code)
        error.show()
        return int(error.exit_code)
    except DiffgenError as error:
        return _print_error(error, as_json)
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a file or disk error that no code expected, not a bug of ours
        if error.errno is None:
            raise
        path = error.filename2 or error.filename or "standard output"
        hint = "check the path, its permissions and the disk, then run the command again"
        return _print_error(DiffgenError(f"{path}: {why(error)}", hint), as_json)
