"""YAML text to plain data, with line numbers. Refuses YAML that no recipe needs: duplicate keys, alias bombs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from diffgen.errors import UsageError, why

# A recipe has some dozens of values, a data.yaml as many as it has classes. Aliases that expand to more than this are a
# mistake or an attack (an "alias bomb").
MAX_NODES = 100_000
MAX_DEPTH = 50


def read_yaml(text: str, path: Path) -> Any:
    """Plain data of a YAML text. Raises UsageError, which names `path` and the line."""
    return construct(compose(text, path), path)


def compose(text: str, path: Path) -> yaml.Node | None:
    """The node tree of a YAML text, None for an empty one. Raises UsageError."""
    with _errors_of(path):
        return yaml.compose(text, Loader=_Loader)


def construct(root: yaml.Node | None, path: Path) -> Any:
    """Plain data of a node tree. Raises UsageError."""
    with _errors_of(path):
        return None if root is None else _Loader("").construct_object(root)


class _Loader(yaml.SafeLoader):
    nodes = 0

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue  # PyYAML refuses keys that are not scalars; `<<` may be repeated
            if key.value in keys:
                raise _refused(key, f"duplicate key '{key.value}'", "remove one of them")
            keys.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(self.recursive_objects) > MAX_DEPTH:
            raise _refused(node, "too many values, or nested too deeply", "nest less, and use no aliases of aliases")
        if node in self.recursive_objects:
            raise _refused(node, "an anchor contains itself", "remove the alias")
        try:
            value = super().construct_object(node, deep=True)
        except (ValueError, OverflowError) as error:  # such as an impossible date
            raise _refused(node, f"cannot read this value: {why(error)}", "quote it if it is text") from None
        if isinstance(value, str) and not is_whole(value):
            raise _refused(node, f"{value!a} is not valid Unicode (a lone surrogate)", "write it as UTF-8 text")
        self.constructed_objects.pop(node, None)  # each alias becomes a copy: `--set` must change only one place
        return value


def _refused(node: yaml.Node, problem: str, hint: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark, note=hint)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        if error.note:
            raise UsageError(f"{where}: {error.problem}", error.note) from None
        raise UsageError(
            f"{where}: not valid YAML: {error.problem or error}", "check indentation and quotes there"
        ) from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply", "nest less") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: not valid YAML: {why(error)}", "it must be YAML text") from None


def is_whole(text: str) -> bool:
    """Whether text is free of lone surrogates, which an escape such as "\\ud800" creates and no path or file can contain.

    Surrogates that stand for the bytes of a path that is not UTF-8 (`surrogateescape`) are allowed.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def line_of(root: yaml.Node | None, path: Sequence[int | str]) -> int | None:
    """The line (from 1) of the deepest node on the way to `path`, None if not even the first key is there.

    The level of a preset's name (`- night: {…}`) is skipped: it is not part of `path`.
    """
    node, line = root, None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            values = {key.value: (key, value) for key, value in node.value}
            if part not in values and len(values) == 1:
                (only,) = values.values()
                if isinstance(only[1], yaml.MappingNode):
                    values = {key.value: (key, value) for key, value in only[1].value}
            if part not in values:
                break
            key, node = values[str(part)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
