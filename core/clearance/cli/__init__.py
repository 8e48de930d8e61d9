"""The command line: `clearance ...`.

Exit codes: 0 done; 1 error: bad input, not found, the ledger is unavailable, or `doctor` found a failure; 2 denied,
refused by the state of things (frozen, closed, settled before), or nothing that can be done at a server; 3 something is
left to do: `apply --dry-run` found changes, or `journal flush` could not settle all; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

NEEDS = ("typer", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Needs the extra `cli`."""
    try:
        from clearance.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDS:
            raise
        print(f"error: the command line needs {error.name}: pip install 'clearance[cli]'", file=sys.stderr)
        return 1
    return run(list(sys.argv[1:] if argv is None else argv))
