"""Model names: which known name does a served one belong to?"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

# A version stamp, at the end and on a segment boundary. Not any suffix: `gpt-5-pro` is no version of `gpt-5`, and costs
# twelve times as much; an unknown variant must be unknown.
_STAMP = re.compile(
    r"^(?P<base>.+?)[-@:_]"
    r"(?:\d{4}-\d{2}-\d{2}"  # 2024-07-18
    r"|\d{8}"  # 20250929
    r"|\d{2}-\d{4}"  # 08-2024
    r"|\d{2}-\d{2}"  # 05-20
    r"|\d{4}"  # 0613, 2411
    r"|0\d{2}"  # 001
    r"|v\d+(?::\d+)?"  # v1:0
    r"|latest)$"
)


def bases(name: str) -> Iterator[str]:
    """`name`, then without its last version stamp, and so on: longest first.

    >>> list(bases("gpt-4o-mini-2024-07-18"))
    ['gpt-4o-mini-2024-07-18', 'gpt-4o-mini']
    """
    yield name
    while match := _STAMP.match(name):
        name = match["base"]
        yield name


def known_as(name: str, known: Collection[str]) -> str | None:
    """The longest of `known` (lower case) that `name` is or is a dated version of."""
    return next((base for base in bases(name.lower()) if base in known), None)
