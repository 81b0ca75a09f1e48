"""Whatever is wrong, the user reads one line that says where and what, and one that says what to do. No traceback."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import diffgen
from diffgen.dataset.images import read_size
from diffgen.errors import SourceError, why
from tests.fakes import FakeEditor, make, make_dataset, put, recipe_fields, write_recipe

PACKAGE = Path(diffgen.__file__).parent
NAMES = ("Ultralytics",)  # that a message may begin with


def raised() -> list[tuple[str, list[ast.expr]]]:
    """(where, arguments) of every error in diffgen that ends a command, from its source.

    The others (SourceError, TransientError, …) become the record of one image, which has one line.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("DiffgenError", "UsageError"):
                where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                found.append((where, [*node.args, *(keyword.value for keyword in node.keywords)]))
    return found


def test_every_error_says_what_to_do() -> None:
    assert len(raised()) > 150
    without = [where for where, given in raised() if len(given) < 2 or ast.unparse(given[1]) in ("None", "''")]
    assert without == []


def test_messages_are_one_line_without_a_full_stop() -> None:
    for where, given in raised():
        for text in given:
            parts = [
                part.value for part in ast.walk(text) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            assert not any("\n" in part for part in parts), where
            ends = text.values if isinstance(text, ast.JoinedStr) else [text]
            if isinstance(ends[-1], ast.Constant):
                assert not str(ends[-1].value).endswith("."), where
            if isinstance(ends[0], ast.Constant):
                first = str(ends[0].value)
                assert not first[:1].isupper() or first.startswith(NAMES), where


def test_a_cause_is_one_line_without_path_and_number() -> None:
    assert why(FileNotFoundError(2, "No such file or directory", "/a/b")) == "No such file or directory"
    assert why(ValueError("first\nsecond")) == "first"
    assert why(ValueError()) == "ValueError"
    with pytest.raises(UnicodeDecodeError) as caught:
        b"ab\xff".decode()
    assert why(caught.value) == "not UTF-8 text (byte 2)"


LONG = "a" * 300


def change_state(out: Path, **fields: Any) -> None:
    put(out / "run.json", json.dumps({**json.loads((out / "run.json").read_text()), **fields}))


def folder_for(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def linked_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


# (name, is there a run, what goes wrong given the folder of recipe.yaml, data/ and out/, command, exit code, words)
BROKEN: list[tuple[str, bool, Callable[[Path], Any], str, int, str]] = [
    ("name too long", False, lambda d: None, f"plan {LONG}", 1, "File name too long"),
    ("folder name too long", False, lambda d: None, f"init {LONG}", 1, "File name too long"),
    ("output of a loop of links", False, lambda d: linked_to_itself(d / "out"), "run", 2, "out is not a folder"),
    ("output is a file", False, lambda d: put(d / "out", "x"), "run", 2, "out is not a folder"),
    ("status of a file", False, lambda d: put(d / "out", "x"), "status", 2, "out is not a run folder"),
    ("clean of nothing", False, lambda d: None, "clean", 2, "nothing was made there yet"),
    ("run.json is a folder", True, lambda d: folder_for(d / "out/run.json"), "run", 1, "out/run.json: cannot write"),
    ("run.json of a later format", True, lambda d: change_state(d / "out", format=3), "plan", 1, "its format is not"),
    ("run.json is damaged", True, lambda d: change_state(d / "out", revisions=3), "plan", 1, "revisions is damaged"),
    (
        "records are a folder",
        True,
        lambda d: folder_for(d / "out/records-0.jsonl"),
        "plan",
        1,
        "records-0.jsonl: cannot be",
    ),
    (
        "records are a folder",
        True,
        lambda d: folder_for(d / "out/records-0.jsonl"),
        "status",
        1,
        "records-0.jsonl: cannot",
    ),
    ("recipe of the folder", True, lambda d: folder_for(d / "out/recipe.yaml"), "export", 1, "out/recipe.yaml: cannot"),
    (
        "what no run left",
        True,
        lambda d: (d / "out/images/.tmp/x/y").mkdir(parents=True),
        "run",
        1,
        "images/.tmp/x/y: cannot write",
    ),
    ("zero byte in a list", False, lambda d: zero_in_list(d), "plan", 2, "list.txt:2: a path contains a zero byte"),
    ("data.yaml is a folder", False, lambda d: folder_for(d / "data/data.yaml"), "plan", 2, "data.yaml is a folder"),
    ("data.yaml is not UTF-8", False, lambda d: not_utf8(d / "data/data.yaml"), "plan", 2, "not UTF-8 text .byte 8"),
    ("split name too long", False, lambda d: make_dataset(d / "data", train=LONG), "plan", 1, "File name too long"),
]


def zero_in_list(folder: Path) -> None:
    put(folder / "data/list.txt", "./images/train/00.jpg\n./images/a\0b.jpg\n")
    make_dataset(folder / "data", train="list.txt")


def not_utf8(path: Path) -> None:
    path.write_bytes(b"names: [\xe9]\n")


@pytest.mark.parametrize(
    ("made", "spoil", "command", "code", "words"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_what_is_in_the_way_is_one_line_and_a_hint(
    cli: Callable[..., Any],
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: bool,
    spoil: Callable[[Path], Any],
    command: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if made:
        make(recipe)
    spoil(tmp_path)
    arguments = command.split()
    answer = cli(*(arguments if len(arguments) > 1 else [command, recipe]), editor=FakeEditor())
    assert answer.code == code, answer.err
    error, hint = [line for line in answer.err.splitlines() if "images to make" not in line]
    assert re.match(rf"error: .*{words}", error), error
    assert re.match(r"hint: \S", hint)
    assert "Traceback" not in answer.err


def test_clean_of_nothing_makes_no_folder(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    cli("clean", recipe)
    assert not (tmp_path / "out").exists()


def test_a_file_called_dataset_stays_where_it_is(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    put(tmp_path / "out/lock", "")
    put(tmp_path / "out/run.json", '{"format": 1, "environments": {}}')
    mine = put(tmp_path / "out/dataset", "mine")
    answer = cli("run", recipe, editor=FakeEditor())
    assert answer.code == 1
    assert f"{mine} is a file, but must be a folder" in answer.err
    assert mine.read_text() == "mine"


def test_a_folder_that_cannot_be_looked_into_is_not_left_out_in_silence(
    cli: Callable[..., Any], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "data/images/train/closed"
    closed.mkdir()
    look = os.scandir

    def scandir(path: Any) -> Any:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    answer = cli("plan", recipe)
    assert answer.code == 2
    assert f"{closed}: cannot read this folder: Permission denied" in answer.err


# (value of a recipe's `model`, words of the message)
MODELS: list[tuple[dict[Any, Any], str]] = [
    ({"hub": "a/b", "revision": 12345678}, "model: revision: expected a text, got 12345678"),
    ({"hub": 3}, "model: hub: expected a text, got 3"),
    ({"file": None}, "model: file: expected a text, got None"),
    ({"file": "x.safetensors", "config": 3}, "model: config: expected a text"),
    ({"hub": "a/b", "native": 10**30}, "model: native: expected a whole number from 1 to 8192"),
    ({"hub": "a/b", "guidance": float("nan")}, "model: guidance: expected a number from 0"),
    ({"hub": "a/b", "severity": "a\0b"}, "a value contains a zero byte: 'a.x00b'"),
]


@pytest.mark.parametrize(("model", "words"), MODELS)
def test_a_model_in_the_wrong_words(
    cli: Callable[..., Any], dataset: Path, tmp_path: Path, model: dict[Any, Any], words: str
) -> None:
    answer = cli("plan", write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "out", model=model))
    assert answer.code == 2
    assert re.search(words, answer.err), answer.err


@pytest.mark.parametrize("size", ["x", [], ["a"], 0, None])
def test_a_model_whose_configs_make_no_sense(cli: Callable[..., Any], tmp_path: Path, size: Any) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "U"],
        "vae": ["diffusers", "V"],
        "x": [1, 2],
    }
    put(tmp_path / "m/model_index.json", json.dumps(index))
    put(tmp_path / "m/vae/config.json", json.dumps({"block_out_channels": [1, 2]}))
    put(tmp_path / "m/unet/config.json", json.dumps({"sample_size": size}))
    for part in ("vae", "unet"):
        put(tmp_path / f"m/{part}/diffusion_pytorch_model.safetensors", "x")
    answer = cli("models", tmp_path / "m")
    assert answer.code == 1
    assert "its config files do not state the image sizes" in answer.err


# (what the recipe says more, or otherwise; message after file and line; hint)
FAULTS: list[tuple[dict[Any, Any], str, str]] = [
    ({"output": None}, "output: must be text, got nothing", "output: the run folder"),
    ({"select": "x"}, "select: must be a mapping, got 'x'", "'diffgen schema' describes every key"),
    ({"variants": "2.5"}, "variants: must be a whole number, got '2.5'", "variants: images per source"),
    ({"seed": 1e308}, "seed: must be a", "seed: random seed"),
    ({"require": {"accepted": 2}}, "require.accepted: must be 1.0 or less, got 2", "accepted: minimum share of planned"),
    ({"device": "potato"}, "device: must be auto, cpu, cuda, cuda:N or mps, got 'potato'", "device: auto, cpu"),
    ({"device": 0}, "device: must be text, got 0", "device: auto, cpu"),
    ({"conditions": []}, "conditions: must have 1 or more entries, got a list", "conditions: preset names"),
    ({"conditions": [3]}, r"conditions\[0\]: must be a mapping, got 3", "conditions: preset names"),
    ({"conditions": [{"name": "a/b", "prompt": "x"}]}, r"conditions\[0\].name: must consist of letters, digits", "name: letters"),
    ({"dataset": {"path": "x"}}, "dataset: must be the path of a data.yaml, or a mapping with format", "dataset: data.yaml"),
    ({"dataset": {"format": "coco", "trian": 1}}, "dataset.trian: unknown key. Did you mean 'train'", "known keys here: format, tr"),
    ({"dataset": {"format": "voc", "train": {"images": "x", "annotations": "y", "z": 1}}}, "dataset.train.z: unknown key", "known keys here: images, annotations, list"),
    ({"dataset": {"format": "coco", "train": {"images": "x"}}}, "dataset.train.annotations: this key is missing", "annotations: COCO instances"),
    ({1: 2}, r"\[1\]: a key must be text: put it in quotes", ""),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message", "hint"), FAULTS)
def test_a_fault_of_the_recipe_in_plain_words(
    cli: Callable[..., Any], dataset: Path, tmp_path: Path, fields: dict[Any, Any], message: str, hint: str
) -> None:
    given = {**recipe_fields(dataset, tmp_path / "out"), **fields}
    path = put(tmp_path / "r.yaml", yaml.safe_dump(given, sort_keys=False))
    answer = cli("plan", path)
    assert answer.code == 2
    assert re.search(rf"^error: {re.escape(str(path))}(:\d+)?: {message}", answer.err), answer.err
    assert f"\nhint: {hint}" in answer.err
    assert "Input should" not in answer.err


def test_a_tag_is_refused_on_one_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    answer = cli("plan", put(tmp_path / "r.yaml", "device: !!python/object:os.system x\n"))
    assert len(answer.err.splitlines()) == 2


def test_nothing_to_edit_says_so(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    for image in (tmp_path / "data/images").rglob("*.jpg"):
        image.write_bytes(b"")
    answer = cli("run", recipe, editor=FakeEditor())
    assert answer.code == 1
    assert "nothing could be made: the recipe selects no picture that can be edited" in answer.out


def test_a_file_that_is_no_picture_has_the_same_words_each_time() -> None:
    texts = set()
    for raw in (b"", b"x", b"<html>"):
        with pytest.raises(SourceError) as caught:
            read_size(raw)
        texts.add(caught.value.message)
    assert texts == {"cannot read the image: unknown format"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_standard_output_is_one_line(recipe: Path, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "diffgen", "plan", str(recipe)],
            cwd=root, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: No space left on device\nhint: ")
