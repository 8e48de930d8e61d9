"""Long lists of names, written so that people can read them."""

from __future__ import annotations


def names(text: str) -> tuple[str, ...]:
    return tuple(text.split())
