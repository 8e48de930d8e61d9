"""OpenClaw: a plugin in JavaScript that forwards its hooks, and the Python side that answers them.

`PLUGIN` is the folder that OpenClaw loads. It asks `POST /v1/x-clearance/hooks/openclaw` of a Clearance server, whose
route hands each event to a `Desk`.
"""

from pathlib import Path

from clearance_hooks.openclaw.desk import Desk
from clearance_hooks.openclaw.host import Answer, Host

PLUGIN = Path(__file__).parent / "plugin"
"""With the manifest, the package file and index.js; they need nothing but Node's own modules."""

__all__ = ["PLUGIN", "Answer", "Desk", "Host"]
