"""A server in a process of its own: `python -m tests.server.child STORE PORT_FILE [seconds of webhooks]`."""

from __future__ import annotations

import sys
from pathlib import Path

from clearance.server import Settings, serve

if __name__ == "__main__":
    store, told, key_file = sys.argv[1:4]

    def tell(line: str) -> None:
        with Path(told).open("a") as file:
            file.write(line + "\n")

    settings = Settings(
        admin_key_file=Path(key_file), webhook_private=True, webhook_http=True, poll_seconds=0.02, drain_seconds=10
    )
    serve(store, port=0, admin_port=0, settings=settings, tell=tell)
