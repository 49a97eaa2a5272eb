"""A YAML text as flat entries with their lines, and plain words for a text that is none."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from paddlealign.arguments.dialects.reading import Entry, plain_value
from paddlealign.arguments.json_file import read_text
from paddlealign.errors import UserError

_DEPTH = 50
_EXAMPLE = "    algorithm:\n      algorithm_type: dpo\n      kl_loss_fn_args:\n        kl_coef: 0.1"


def read_yaml(path: Path, sections: Mapping[str, frozenset[str]]) -> dict[str, Entry]:
    """Dotted key -> value, for every leaf; an empty section is a leaf with null. Only plain data is read: no tags, no anchors.

    sections: the sections that a configuration has and some keys of each, by which lost indentation is known. Raises UserError.
    """
    text = read_text(path)
    try:
        _refuse_depth_and_aliases(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(_explain(path, text, error)) from None
    if root is None:
        raise UserError(f"{path}: the file is empty.")
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: a configuration is a mapping, key: value; this file is a {root.id}.")
    _refuse_lost_indentation(path, root, sections)
    entries: dict[str, Entry] = {}
    _flatten(path, root, "", entries)
    return entries


def _refuse_depth_and_aliases(path: Path, text: str) -> None:
    """A file of a few lines could otherwise take minutes, or all memory."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise UserError(f"{path}, line {event.start_mark.line + 1}: the YAML is nested too deeply.")
        if isinstance(event, yaml.AliasEvent):
            place = f"{path}, line {event.start_mark.line + 1}"
            raise UserError(f"{place}: an alias (*{event.anchor}) is not read. Write the values themselves.")


def _flatten(path: Path, node: yaml.MappingNode, prefix: str, entries: dict[str, Entry]) -> None:
    seen: dict[str, int] = {}
    for key_node, value in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{path}, line {line}: a key must be a plain word.")
        key = f"{prefix}{key_node.value}"
        if key_node.value in seen:
            raise UserError(f"{path}: the key {key} stands there twice (lines {seen[key_node.value]} and {line}). Keep one of them.")
        seen[key_node.value] = line
        if isinstance(value, yaml.MappingNode) and value.value:
            _flatten(path, value, f"{key}.", entries)
        else:
            entries[key] = Entry(_plain(value), f"{path}, line {line}")


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return plain_value(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return {str(key.value): _plain(value) for key, value in node.value}


def _refuse_lost_indentation(path: Path, root: yaml.MappingNode, sections: Mapping[str, frozenset[str]]) -> None:
    """A page that was copied without its indentation is YAML all the same: every key stands at the left margin."""
    lines: dict[str, int] = {}
    empty: list[str] = []
    for key, value in root.value:
        lines.setdefault(str(key.value), key.start_mark.line + 1)
        if isinstance(value, yaml.ScalarNode) and value.value == "":
            empty.append(str(key.value))
    for section in empty:
        astray = [key for key in lines if key in sections.get(section, ())]
        if astray:
            raise UserError(
                f"{path}: the indentation is lost. {section} in line {lines[section]} has nothing under it, and its keys stand at the left "
                f"margin like itself ({', '.join(f'{key} in line {lines[key]}' for key in astray)}). In YAML the spaces in front of a key "
                f"say what it belongs to: indent each key below its section again, two spaces a level, like\n{_EXAMPLE}"
            )


def _explain(path: Path, text: str, error: yaml.YAMLError) -> str:
    """One line: file, line, column, and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or str(error).splitlines()[0])
    if mark is None:
        return f"{path}: this is no YAML: {problem}."
    place = f"{path}, line {mark.line + 1}, column {mark.column + 1}"
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if re.match(r"\s*\t", line):
        return f"{place}: a tab. YAML is indented by spaces."
    if "mapping values are not allowed" in problem:
        return f"{place}: a colon where none can stand. Is the line indented like its neighbours, and is a text with a colon in quotes?"
    if "single document" in problem or "single document" in str(error):
        return f"{place}: a second document begins. A configuration is one document: take out the lines --- and ... ."
    return f"{place}: this is no YAML: {problem}."
