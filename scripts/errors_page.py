"""docs/errors.md: every message by theme, with what to do; from the source of diffgen, so that it cannot go stale."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable

from diffgen import errors
from diffgen.checks import verdict as checks
from diffgen.recipe import messages as faults
from scripts.messages import Message, messages

INTRO = """# Errors

What diffgen says when something is wrong, what it means and what to do. An error is two lines on stderr and an exit code:

```
error: recipe.yaml:7: conditions[1].strenght: unknown key. Did you mean 'strength'?
hint: known keys here: name, prompt, instruction, …
```

With `--json` stdout holds the same as `{"error": …, "hint": …, "exit_code": …}`. In the tables below
`<words>` stand for what varies; search for a few words of your message that are not a name. `<cause>` is the reason as
the operating system or a library gives it. A Python traceback is a bug of diffgen: please report it with the output of
`diffgen doctor`.

This page is written by `python scripts/check_docs.py --write` from the messages in the code.
"""

# Theme → (what is common to its messages, the modules they come from).
THEMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "The recipe": (
        "Found before anything is read or made. `--set` is checked like the file.",
        (
            "recipe",
            "faults",
            "overrides",
            "yamltree",
            "plan",
            "placement",
            "run",
            "editors/__init__",
            "editors/schedulers",
        ),
    ),
    "The command line": (
        "Unknown commands and options, and values out of range, are named by the command line itself, with exit code 2; "
        "`diffgen COMMAND --help` shows what there is.",
        ("cli", "starter", "sweeps", "trajectory", "reproduce"),
    ),
    "The dataset": (
        "What makes a whole dataset unusable. A single bad picture or label file is no error: see "
        "[below](#pictures-that-are-not-edited).",
        ("sources", "formats/__init__", "formats/yolo", "formats/coco", "formats/voc"),
    ),
    "The model": ("", ("models", "hub", "vocabulary", "loras", "editors/loading", "editors/lora")),
    "ControlNets and their maps": (
        "A source without its own map is no error: see [below](#pictures-that-are-not-edited).",
        ("guides", "weights", "editors/controlnet", "controls"),
    ),
    "The detector and CLIP": ("", ("detect", "annotators", "clip")),
    "The run folder and the dataset that is written": (
        "What was committed before an error is safe; the same command goes on from there.",
        ("store", "export"),
    ),
    "The review": ("Of the file given as `--review`, and of the run folder's `review.yaml`.", ("review",)),
    "While images are made": ("", ("worker", "blend")),
}

PROBLEMS = {
    "annotation": "the XML annotation is broken: mend it",
    "class-id": "mend the row, or add the class to `names`",
    "columns": "mend the row: class and box, class and polygon, or the columns of `kpt_shape`",
    "control map": "give the source a map of its aspect in the `folder` of the control, or take the control out",
    "encoding": "save the label file as UTF-8",
    "format": "nothing, or convert the picture to JPEG or PNG",
    "missing": "bring the file back, check its permissions, or take it off the list; it is not carried over",
    "mixed": "write all rows of a file as boxes, or all as polygons",
    "number": "mend the row",
    "range": "mend the row: coordinates are shares of the picture, 0 to 1",
    "size": "correct the annotation's width and height, or give it the right picture",
    "tiny": "nothing: Ultralytics leaves such a picture out",
    "unreadable": "copy the picture again",
}

# Where a rejection comes from, and what helps.
REASONS = {
    "degenerate": "the picture is nearly one flat tone (`checks.contrast`): lower the strength, or try other words",
    "registration": "the picture lies further from its source than `checks.registration` pixels, and so would its labels: "
    "lower the strength",
    "structure": "too little is left of the objects' edges (`checks.structure`): lower `strength` or `objects.strength`, "
    "raise `objects.detail`, set `attempts: 3`, or see `checks.on_object_lost`",
    "recall": "the detector finds too few of the objects again (`checks.recall`): as for structure; a detector that knows "
    "the condition helps too",
    "new-objects": "the detector finds things where nothing was (`checks.new_objects`): lower the strength, or take words "
    "for things out of the prompt",
    "unchanged": "the condition did not come about (`checks.happened`, `checks.clip`): raise the strength; "
    "a source that is night already cannot become night",
    "review": "somebody rejected it by hand (`review.yaml` in the run folder): give another `--review` to take that back",
    "still-there": "an object that a task should remove is still seen by the detector, or others hide too much of it: set "
    "`attempts: 3`, name it in `negative_prompt`, raise `objects.feather`",
    "not-confirmed": "the detector does not find what a task inserted: set `attempts: 3`, or a prompt with less beside it",
    "unlabelled": "text2img: the detector does not find the class that the picture was asked for, surely enough "
    "(`checks.confidence`): set `attempts: 3`, a plainer template, a larger detector",
    "failed": "no image was made: see the failure kinds",
}

KINDS = {
    "source": "final: the picture or its label is the cause. Mend it; it is then a new image to make",
    "transient": "may pass (memory, a device, a file that was away or changed): the next run tries it again",
}

# What becomes the record of one image, and does not end the run.
ONE_IMAGE = ("SourceError", "TransientError", "OutOfMemory", "_Broken")

REMARKS = """Lines on stderr that are no errors; `--quiet` leaves out those of `run`.
"""


def errors_page(readme: str) -> str:
    """The page. Raises SystemExit naming what it lacks words for."""
    found = messages()
    told = [message for message in found if hasattr(errors, message.kind)]
    themed = {module for _, modules in THEMES.values() for module in modules}
    singles = [message for message in found if message.kind in ONE_IMAGE]
    _complete(
        "module", {message.module for message in told if message not in singles}, themed | {"errors"}, exact=False
    )
    problems = [message for message in found if message.kind == "problem" and message.word and "<" not in message.word]
    _complete("problem", {str(message.word) for message in problems}, set(PROBLEMS))
    _complete("reason", _reasons(), set(REASONS))
    records = [message for message in found if message.kind == "record"]
    _complete("failure kind", {str(message.word) for message in records}, set(KINDS))
    parts = [INTRO, "## Exit codes\n", _exit_codes(readme)]
    for title, (text, modules) in THEMES.items():
        rows = [
            message for module in modules for message in told if message.module == module and message not in singles
        ]
        parts += [f"## {title}\n", *([f"{text}\n"] if text else []), _table(rows)]
        if title == "The recipe":
            parts += ["The `<fault>` of a key that has a wrong value is one of:\n", _faults()]
    parts += [
        "## Pictures that are not edited\n",
        "`plan` lists them by a word, under `unedited`. They are carried over as they are, with their labels; "
        "those that are `missing` are left out.\n",
        _rows(
            ("word", "message", "what to do"), ((f"`{m.word}`", _code(m.text), PROBLEMS[str(m.word)]) for m in problems)
        ),
        "## Images that failed\n",
        "`run` and `status` count them by kind, and show the first messages. The run goes on without them.\n",
        _rows(("kind", "meaning and what to do"), ((f"`{kind}`", text) for kind, text in KINDS.items())),
        "Their messages begin with the picture (`train/0001`), and say one of:\n",
        _rows(
            ("message",),
            (
                (_code(text),)
                for text in dict.fromkeys(m.text.removeprefix("<key>: ") for m in [*singles, *records])
                if text not in ("<cause>", "<edited>")
            ),  # those stand above already
        ),
        "## Images that were rejected\n",
        "Made, but not in the dataset. `export --set checks.…` judges again without making an image.\n",
        _rows(("reason", "meaning and what to do"), ((f"`{reason}`", text) for reason, text in REASONS.items())),
        "## Remarks\n",
        REMARKS,
        _rows(("remark",), ((_code(m.text),) for m in found if m.kind == "remark")),
    ]
    return "\n".join(parts)


def _complete(what: str, there: set[str], known: set[str], *, exact: bool = True) -> None:
    if missing := sorted(there - known):
        raise SystemExit(f"scripts/errors_page.py: no words for the {what} {', '.join(missing)}")
    if exact and (extra := sorted(known - there)):
        raise SystemExit(f"scripts/errors_page.py: no such {what} any more: {', '.join(extra)}")


def _reasons() -> set[str]:
    tree = ast.parse(inspect.getsource(checks.judge))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Verdict")
    return {str(ast.literal_eval(node.args[1])) for node in calls if len(node.args) == 2}


def _exit_codes(readme: str) -> str:
    """The README's table, the only one that is written by hand."""
    lines = readme[readme.index("| exit code |") :].splitlines()
    return "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line)]) + "\n"


def _table(rows: Iterable[Message]) -> str:
    seen: dict[tuple[str, str], int] = {}
    for message in rows:
        seen.setdefault((message.text, message.hint or ""), getattr(errors, message.kind).exit_code)
    cells = ((_code(text), _plain(hint), str(code)) for (text, hint), code in seen.items())
    return _rows(("message", "what to do", "exit code"), cells)


def _faults() -> str:
    return _rows(
        ("fault",),
        ((_code(fault.replace("{", "<").replace("}", ">")),) for fault in dict.fromkeys(faults._FAULTS.values())),
    )


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """A message as code; two forms of it (`a | b`) one after the other."""
    return " or ".join(f"`{part}`" for part in text.split(" | "))


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace(" | ", ", or: ")
