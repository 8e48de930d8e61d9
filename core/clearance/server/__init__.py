"""The authority behind HTTP: the Cycles protocol for any client, and our own routes beside it.

from clearance.server import serve

serve("sqlite:///budget.db")
"""

from __future__ import annotations

from clearance.server.app import create_app
from clearance.server.serving import serve
from clearance.server.settings import Settings

__all__ = ["Settings", "create_app", "serve"]
