"""Every message that diffgen can end or mark something with, read from its source: for docs/errors.md and its test.

Parts that vary stand as `<word>`, the word being the name that the code has for them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "diffgen"
ERRORS = ("DiffgenError", "UsageError", "SourceError", "TransientError", "OutOfMemory", "_Broken")
# What a call puts into a message, where its name does not say it.
CALLS = {
    "why": "<cause>",
    "_fault": "<cause>",
    "_device_failed": "the device failed: <cause>",
    "_did_you_mean": ". Did you mean '<name>'?",
    "did_you_mean": ". Did you mean '<name>'?",
    "_kind": "is a <kind>",
    "fetch_command": "hf download <model> …",
    "network_command": "hf download <model> …",
}
WORDS = {
    "__name__": "kind", "error": "cause", "above": "folder", "below": "folder", "cls": "class", "cls_name": "class",
    "existing": "folder",
    "filename": "file", "filename2": "file", "first_line": "cause", "image_format": "format", "item": "key=value",
    "lacking": "parts", "loc": "key", "match": "variable", "message": "cause", "n": "number", "own": "class",
    "path": "file", "place": "path", "reason": "cause", "requested": "name", "strerror": "cause", "text": "fault",
    "full_name": "<network> '<name>'",
    "title": "model '<name>'", "twice": "name", "unknown": "name", "weights": "file", "written": "path", "wrong": "number",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """`kind` is the exception's class, or "record", "problem", "remark". `word` is what it is counted by, if anything."""

    module: str
    line: int
    kind: str
    text: str
    hint: str | None = None
    word: str | None = None


def messages() -> list[Message]:
    """By module, in the order of the source."""
    found = [message for path in sorted(PACKAGE.rglob("*.py")) for message in _of_file(path)]
    return sorted(found, key=lambda message: (message.module, message.line))


def _of_file(path: Path) -> Iterator[Message]:
    module = path.relative_to(PACKAGE).with_suffix("").as_posix()
    tree = ast.parse(path.read_text("utf-8"))
    constants = {**_imported(tree.body), **_assigned(tree.body)}
    inner: set[ast.AST] = set()
    for scope in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        known = {**constants, **_assigned([node for node in ast.walk(scope) if isinstance(node, ast.Assign)])}
        for node in ast.walk(scope):
            if node in inner:  # of a function within a function
                continue
            inner.add(node)
            for kind, text, hint, word in _of_node(node, known, module):
                yield Message(module, getattr(node, "lineno", 0), kind, text, hint, word)


def _assigned(body: list[ast.stmt] | list[ast.Assign]) -> dict[str, ast.expr | None]:
    """Names with the one expression they stand for; None for those that stand for several."""
    found: dict[str, ast.expr | None] = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(name := node.targets[0], ast.Name):
            found[name.id] = None if name.id in found else node.value
    return found


def _imported(body: list[ast.stmt]) -> dict[str, ast.expr | None]:
    """The same of constants that stand in another file of diffgen."""
    found: dict[str, ast.expr | None] = {}
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffgen."):
            path = PACKAGE.parent.joinpath(*str(node.module).split(".")).with_suffix(".py")
            names = {alias.name for alias in node.names if alias.name.isupper()}
            if names and path.is_file():
                there = _assigned(ast.parse(path.read_text("utf-8")).body)
                found |= {name: value for name, value in there.items() if name in names}
    return found


def _of_node(
    node: ast.AST, known: dict[str, ast.expr | None], module: str
) -> Iterator[tuple[str, str, str | None, str | None]]:
    def text(part: ast.expr) -> str:
        return _text(part, known)

    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        yield from (_problem(text(v)) for k, v in pairs if _is_problem(k) and isinstance(v, ast.JoinedStr))
    elif (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.JoinedStr)
        and isinstance(node.targets[0], ast.Subscript)
    ):
        if _is_problem(node.targets[0].slice):
            yield _problem(text(node.value))
    elif (
        isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and _name(node.exc.func) in ("ValueError", "Misplaced")
    ):
        if module == "recipe":  # the others are of programs, not of people
            yield "UsageError", f"<file>:<line>: <key>: {text(node.exc.args[0])}", "<what the key means>", None
    elif isinstance(node, ast.Call):
        name = _name(node.func)
        if name in ERRORS:
            hint = text(node.args[1]).replace(". Did you", "did you") if len(node.args) > 1 else None
            yield name, text(node.args[0]), hint, None
        elif name == "replace":
            fields = {keyword.arg: keyword.value for keyword in node.keywords}
            if isinstance(fields.get("problem"), ast.JoinedStr):
                yield _problem(text(fields["problem"]))
        elif name == "LabelError":
            yield "problem", text(node.args[1]), None, text(node.args[0])
        elif name == "Record":
            fields = {keyword.arg: keyword.value for keyword in node.keywords}
            if "error" in fields:
                yield "record", text(fields["error"]), None, text(fields["kind"])
        elif name == "talk" or (name in ("warning", "log") and _name(getattr(node.func, "value", node)) == "logger"):
            yield (
                "remark",
                text(node.args[-1] if name == "talk" else next(a for a in node.args if isinstance(a, ast.Constant))),
                None,
                None,
            )


def _is_problem(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and key.value == "problem"


def _word(name: str) -> str:
    word = WORDS.get(name, name.strip("_").lower())
    return word if "<" in word else f"<{word}>"


def _problem(text: str) -> tuple[str, str, None, str]:
    word, _, rest = text.partition(": ")
    return "problem", rest, None, word


def _name(node: ast.AST) -> str:
    return getattr(node, "id", None) or getattr(node, "attr", None) or ""


def _text(node: ast.expr, known: dict[str, ast.expr | None]) -> str:
    """A message as it stands in the source, what varies in angle brackets."""
    if isinstance(node, ast.Constant):
        return "" if node.value is None else re.sub("%[ds]", "<…>", str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, known) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        inner = node.value
        if isinstance(inner, ast.Name) and isinstance(value := known.get(inner.id), ast.IfExp):
            inner = value
        return _text(inner.body if isinstance(inner, ast.IfExp) else inner, known)  # in a sentence one form is enough
    if isinstance(node, ast.BinOp):
        left, right = _text(node.left, known), _text(node.right, known)
        if isinstance(node.op, ast.Div):  # a path
            return f"<{left.strip('<>')}>/{right}"
        return left if isinstance(node.right, ast.Constant) and right.isdigit() else left + right
    if isinstance(node, ast.IfExp):
        parts = [part for part in (_text(node.body, known), _text(node.orelse, known)) if part]
        return " | ".join(parts) if parts else "<…>"
    if isinstance(node, ast.Name):
        value = known.get(node.id)
        if value is not None and isinstance(value, (ast.Constant, ast.JoinedStr, ast.IfExp)):
            return _text(value, {name: part for name, part in known.items() if name != node.id})
        return _word(node.id)
    if isinstance(node, ast.Call):
        name = _name(node.func)
        if name == "join" and node.args:
            return _text(node.args[0], known)
        if name in CALLS:
            return CALLS[name]
        return _text(node.args[0], known) if node.args else f"<{name.strip('_')}>"
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        return _text(node.generators[0].iter, known)
    if isinstance(node, ast.Attribute):
        return _word(node.attr)
    if isinstance(node, ast.Subscript):
        inside = node.slice
        return (
            f"<{inside.value}>"
            if isinstance(inside, ast.Constant) and isinstance(inside.value, str)
            else _text(node.value, known)
        )
    if isinstance(node, ast.BoolOp):
        return _text(node.values[0], known)
    return "<…>"
