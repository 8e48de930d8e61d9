"""A host's configuration file, YAML, JSON or TOML, as plain values with `${NAME}` filled in."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from clearance.config.document import MAX_BYTES, MAX_DEPTH
from clearance.config.document import read as read_yaml
from clearance.config.problems import Path, Report, Unquoted
from clearance.errors import InvalidRequest
from clearance_hooks.secret import Interpolated

FORMATS = (".yaml", ".yml", ".json", ".toml")
VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)


def read(path: FilePath) -> tuple[Any, Report]:
    """The values and what is wrong with the file itself. Raises InvalidRequest for a file that cannot be read."""
    text = _text(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        document, report = read_yaml(text, str(path))
        return document.value, report
    report = Report(str(path), {})
    try:
        value = _json(text) if path.suffix.lower() == ".json" else _toml(text)
        _check(value, (), report)
        return value, report
    except (ValueError, RecursionError) as error:  # of both parsers
        report.refuse((), f"is not {path.suffix[1:].upper()}: {_what(error)}")
        return None, report


def _text(path: FilePath) -> str:
    if path.suffix.lower() not in FORMATS:
        raise InvalidRequest("config", f"{path} is of no kind that can be read", ", ".join(FORMATS))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest("config", f"cannot read {str(path)!r}: {error.strerror}", "a file") from None
    if len(data) > MAX_BYTES:
        raise InvalidRequest("config", f"{path} has {len(data):,} bytes", f"at most {MAX_BYTES:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest("config", f"{path} is not UTF-8 text", "UTF-8") from None


class _Object(dict[str, Any]):
    """`twice`: the keys that stand in it more than once, of which a mapping keeps the last."""

    twice: tuple[str, ...] = ()


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_float=Unquoted, parse_constant=Unquoted)


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        made.twice = tuple(name for name, count in counts.items() if count > 1)
    return made


def _check(value: Any, path: Path, report: Report) -> None:
    """Refuses keys that are there twice. Raises ValueError for what is nested too deeply."""
    if len(path) > MAX_DEPTH:
        raise ValueError(f"it is nested too deeply; allowed: {MAX_DEPTH} levels")
    if isinstance(value, _Object):
        for key in value.twice:
            report.refuse((*path, key), "is there twice", "each key once")
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, found in inner:
        _check(found, (*path, name), report)


def _toml(text: str) -> Any:
    return tomllib.loads(text, parse_float=Unquoted)


def _what(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def interpolated(value: Any, path: Path, report: Report, environ: Mapping[str, str]) -> Any:
    """The same with every `${NAME}` in a text filled in. A variable that is not there, or empty, is refused."""
    if isinstance(value, str):
        return _filled(value, path, report, environ)
    if isinstance(value, Mapping):
        return {key: interpolated(inner, (*path, key), report, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, (*path, at), report, environ) for at, inner in enumerate(value)]
    return value


def _filled(text: str, path: Path, report: Report, environ: Mapping[str, str]) -> str:
    if "${" not in text:
        return text
    filled = VARIABLE.sub(_filler(path, report, environ), text)
    return Interpolated(filled, text) if filled else text


def _filler(path: Path, report: Report, environ: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name is None and match[0] == "${":
            problem = f"the ${{ at character {match.start() + 1} has no }}"
            report.refuse(path, problem, "${NAME}; $${ for a plain ${")
            return ""
        if name is None:
            return "${"
        if not _NAME.fullmatch(name):
            report.refuse(path, f"${{{name}}} is not a variable's name", "capitals, digits and _; $${ for a plain ${")
            return ""
        value = environ.get(name, "")
        if not value:
            problem = "is set, but empty" if name in environ else "is not set"
            report.refuse(path, f"the variable {name} {problem}", f"export {name}=...")
        return value

    return fill
