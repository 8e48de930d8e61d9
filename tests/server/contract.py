"""Holds every answer of a server against its own description, whatever test asked for it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import httpx
from jsonschema_rs import Validator, validator_for

from clearance.server.openapi import document


@cache
def _document() -> dict[str, Any]:
    return document()


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """Whole paths first, as the server looks for them."""
    paths = sorted(_document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"{\w+}", "[^/]*", path) + "$"), path) for path in paths]


@cache
def _validator(name: str) -> Validator:
    return validator_for({"$ref": f"#/components/schemas/{name}", "components": _document()["components"]})


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    for pattern, template in _paths():
        if pattern.match(path):
            found: dict[str, Any] | None = _document()["paths"][template].get(method.lower())
            return found
    return None


def conforms(response: httpx.Response) -> None:
    """Raises AssertionError for an answer that the description does not allow."""
    operation = operation_of(response.request.method, response.request.url.path)
    if operation is None:
        assert response.status_code in (404, 405), response.request.url
        return
    where = f"{response.request.method} {response.request.url.path} -> {response.status_code}"
    described = operation["responses"].get(str(response.status_code))
    assert described is not None, f"{where}: this status is not described"
    described = _resolved(described)
    for name, header in described.get("headers", {}).items():
        assert not _resolved(header).get("required") or name in response.headers, f"{where}: no {name}"
    content = described.get("content")
    if content is None or "text/event-stream" in content:
        return
    (media_type,) = content
    assert response.headers["Content-Type"] == media_type, where
    reference = content[media_type]["schema"].get("$ref")
    if reference is not None:
        response.read()
        _check(reference.rpartition("/")[2], response.json(), where)


def _resolved(described: dict[str, Any]) -> dict[str, Any]:
    reference = described.get("$ref")
    if reference is None:
        return described
    found: dict[str, Any] = _document()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _check(name: str, body: Any, where: str) -> None:
    problems = [f"{error.instance_path}: {error.message}" for error in _validator(name).iter_errors(body)]
    assert not problems, f"{where}: not a {name}: {problems}"
