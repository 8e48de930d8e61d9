"""`python -m clearance`: the command line."""

from clearance.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
