"""Each host has an environment of its own, made by `make test-hosts`; elsewhere its tests are not collected."""

from __future__ import annotations

from importlib.util import find_spec

HOSTS = {"pydantic_host": "pydantic_ai", "hermes_host": "hermes_cli"}
collect_ignore = [folder for folder, module in HOSTS.items() if find_spec(module) is None]
