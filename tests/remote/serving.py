"""The real server as a process: `serving.py LEDGER PORT`. It ends when it is killed."""

from __future__ import annotations

import sys

from clearance.server import Settings, serve

if __name__ == "__main__":
    serve(f"{sys.argv[1]}", port=int(sys.argv[2]), settings=Settings(admin_key=sys.argv[3]), tell=lambda line: None)
