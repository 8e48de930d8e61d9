"""`python -m clearance_langchain program.py ...`: a program that nobody changes, with every LangChain call governed.

`-m module` works as Python's own. The authority is that of `clearance.connect()`; the subject comes from the context.
"""

from __future__ import annotations

import os
import runpy
import sys

from clearance_langchain.processwide import VARIABLE

USAGE = "usage: python -m clearance_langchain (program.py | -m module) [arguments ...]"


def main() -> None:
    arguments = sys.argv[1:]
    as_module = arguments[:1] == ["-m"]
    if as_module:
        arguments = arguments[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(USAGE)
    os.environ[VARIABLE] = "1"
    sys.argv = arguments
    if as_module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    if not os.path.exists(arguments[0]):
        sys.exit(f"{arguments[0]}: no such file\n{USAGE}")
    sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
