"""YAML text to plain data, with line numbers; safe against what a hostile or broken file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from diffgen.errors import UsageError, why

# A recipe has some dozens of values, a data.yaml as many as classes. Anchors that unfold to more than this are a mistake
# or an attack ("YAML bomb").
MAX_NODES = 100_000
MAX_DEPTH = 50


def read_yaml(text: str, path: Path) -> Any:
    """Plain data of a YAML text; `path` is named in errors. Raises UsageError."""
    return construct(compose(text, path), path)


def compose(text: str, path: Path) -> yaml.Node | None:
    """The node tree of a YAML text, None for an empty one. Raises UsageError."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(
            f"{path}{line}: not valid YAML: {error.problem or error}", "check indentation and quotes there"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: not valid YAML: {why(error)}", "it must be YAML text") from None


def construct(root: yaml.Node | None, path: Path) -> Any:
    """Plain data of a node tree; refuses cycles, duplicate keys and anchors that unfold without bound."""
    seen = 0
    scalars = yaml.SafeLoader("")

    def build(node: yaml.Node, above: tuple[int, ...]) -> Any:
        nonlocal seen
        seen += 1
        where = f"{path}:{node.start_mark.line + 1}"
        if seen > MAX_NODES or len(above) > MAX_DEPTH:
            raise UsageError(f"{where}: it unfolds to too many values", "write it without nested anchors")
        if id(node) in above:
            raise UsageError(f"{where}: an anchor holds itself", "take the alias out")
        if isinstance(node, yaml.MappingNode):
            result: dict[Any, Any] = {}
            merged: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                value = build(value_node, (*above, id(node)))
                if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *anchor, or a list of them; the first one wins
                    for part in reversed(value if isinstance(value, list) else [value]):
                        if not isinstance(part, dict):
                            raise UsageError(f"{where}: '<<' takes a mapping", "put an alias of a mapping there")
                        merged.update(part)
                    continue
                key = build(key_node, (*above, id(node)))
                if isinstance(key, (dict, list)):
                    raise UsageError(f"{where}: a key must be text", "quote it")
                if key in result:
                    raise UsageError(f"{path}:{key_node.start_mark.line + 1}: the key '{key}' stands twice", "keep one")
                result[key] = value
            return {**merged, **result}
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*above, id(node))) for item in node.value]
        try:
            value = scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            reason = getattr(error, "problem", None) or why(error)
            raise UsageError(f"{where}: cannot read this value: {reason}", "quote it if it is text") from None
        if isinstance(value, str) and not is_whole(value):
            raise UsageError(f"{where}: {value!a} holds half a character", "write it out, as UTF-8 text")
        return value

    try:
        return build(root, ()) if root is not None else None
    except RecursionError:
        raise UsageError(f"{path}: it is nested too deeply", "write it flatter") from None


def is_whole(text: str) -> bool:
    """Whether text holds no half of a character, as an escape such as "\\ud800" leaves: no path and no file can hold it.

    The halves that stand for the bytes of a path that is not UTF-8 are none of these.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def line_of(root: yaml.Node | None, path: Sequence[int | str]) -> int | None:
    """Line (from 1) of the deepest node on the way to `path`. A preset's own level (`- night: {…}`) is stepped over."""
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
