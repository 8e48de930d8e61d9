"""YAML to plain values with line numbers. Nothing is constructed: only text, whole numbers, true, false and null."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from clearance.config.problems import Path, Report, Unquoted
from clearance.errors import ClearanceError

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass
class Document:
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)


def read(text: str, file: str) -> tuple[Document, Report]:
    """The document and what is wrong with it as YAML: syntax, keys given twice, tags."""
    document = Document()
    report = Report(file, document.lines)
    try:
        root = _compose(text)
    except _yaml().YAMLError as error:
        document.lines[()] = _line_of(error)
        report.refuse((), "is not YAML: " + _what(error))
        return document, report
    except RecursionError:
        report.refuse((), "is nested too deeply", f"at most {MAX_DEPTH} levels")
        return document, report
    if root is not None:
        document.value = _Conversion(report, document.lines).value(root, ())
    return document, report


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise ClearanceError("reading clearance.yaml needs PyYAML: pip install 'clearance[cli]'") from None
    return yaml


def _compose(text: str) -> Any:
    yaml = _yaml()
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _line_of(error: Any) -> int:
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else 1


def _what(error: Any) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())


class _Conversion:
    def __init__(self, report: Report, lines: dict[Path, int]) -> None:
        self._report = report
        self._lines = lines
        self._nodes = 0

    def value(self, node: Any, path: Path) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        # An alias may repeat a part that itself has aliases, or even contain itself.
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            if self._nodes <= MAX_NODES + 1:
                self._report.refuse(
                    path, "is too large or nested too deeply", f"{MAX_DEPTH} levels, {MAX_NODES} values"
                )
                self._nodes = MAX_NODES + 1
            return None
        if node.id == "mapping":
            return self._mapping(node, path)
        if node.id == "sequence":
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.id != "scalar":
                self._report.refuse(path, "has a key that is not text", "names as keys")
                continue
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                first = self._lines[(*path, key)]
                self._lines[(*path, key)] = line
                self._report.refuse((*path, key), f"is there twice, first in line {first}", "each key once")
                continue
            self._lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: Any, path: Path) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "str" | "timestamp" | "value" | "merge":
                return text
            case "null":
                return None
            case "bool" if text.lower() in _TRUTH:
                return _TRUTH[text.lower()]
            case "int" if _WHOLE.fullmatch(text):
                return int(text)
            case "int" | "float" | "bool":
                return Unquoted(text)
        self._report.refuse(path, f"has the tag {node.tag}", "plain text, numbers, lists and mappings")
        return None
