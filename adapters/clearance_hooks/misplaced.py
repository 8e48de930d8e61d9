"""What stands in a host's file beside `plugins.entries` and was meant to be there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clearance.config.problems import Path

SECTION, ENTRIES = "plugins", "entries"
_SIGNS = ("config", "authority", "tenant", "run_budget")
"""Keys that nobody but a plugin's entry has."""
_MAX_DEPTH = 6
_LIKENESS = 0.8


def like_the_section(whole: Mapping[Any, Any]) -> Iterator[str]:
    """Top-level keys that are nearly `plugins`. A plain value under one is the host's own."""
    for key, value in whole.items():
        is_near = difflib.get_close_matches(str(key).lower(), [SECTION], n=1, cutoff=_LIKENESS)
        if key != SECTION and is_near and isinstance(value, Mapping | list):
            yield str(key)


def entries_elsewhere(value: Any, ids: Collection[str], path: Path = ()) -> Iterator[Path]:
    """Places outside of `plugins.entries` where something with a plugin's id looks like its entry."""
    if not isinstance(value, Mapping) or len(path) >= _MAX_DEPTH or path == (SECTION, ENTRIES):
        return
    for key, inner in value.items():
        if key in ids and isinstance(inner, Mapping) and any(sign in inner for sign in _SIGNS):
            yield (*path, key)
        else:
            yield from entries_elsewhere(inner, ids, (*path, key))
