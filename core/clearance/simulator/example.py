"""A sample value for a JSON schema: what the simulator gives as tool arguments and structured output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 12
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "email": "sample@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: Any) -> Any:
    """The simplest value that fits: required properties only, the first of several choices.

    Knows types, enum, const, default, examples, anyOf/oneOf/allOf, $ref, sizes, bounds and common formats; does not
    know `pattern`. A schema it cannot read gives None.
    """
    return _value(schema, schema, 0)


def _value(schema: Any, root: Any, depth: int) -> Any:
    if schema is True:
        return {}
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _value(_choice(schema[key], depth), root, depth + 1)
    if isinstance(schema.get("allOf"), list):
        return _all_of(schema, root, depth)
    return _of_type(_type_of(schema), schema, root, depth)


def _of_type(kind: str, schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, depth)
    if kind == "string":
        return _string(schema)
    if kind == "integer":
        return math.ceil(_number(schema, whole=True))
    if kind == "number":
        return _number(schema, whole=False)
    return True if kind == "boolean" else None


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _choice(options: list[Any], depth: int) -> Any:
    """The first option that is not null, or null where a recursive schema must come to an end."""
    null = next((o for o in options if isinstance(o, Mapping) and o.get("type") == "null"), None)
    if null is not None and depth > _MAX_DEPTH // 2:
        return null
    return next((o for o in options if o is not null), null)


def _all_of(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
    for part in schema["allOf"]:
        part = _resolve(str(part["$ref"]), root) if isinstance(part, Mapping) and "$ref" in part else part
        if not isinstance(part, Mapping):
            continue
        for key, value in part.items():
            if key == "properties" and isinstance(value, Mapping):
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required" and isinstance(value, list):
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged.setdefault(key, value)
    return _value(merged, root, depth + 1)


def _resolve(ref: str, root: Any) -> Any:
    found = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if part:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {name: _value(properties.get(name, True), root, depth + 1) for name in required if isinstance(name, str)}


def _array(schema: Mapping[str, Any], root: Any, depth: int) -> list[Any]:
    least = schema.get("minItems", 0 if depth > _MAX_DEPTH // 2 else 1)
    if "items" not in schema or not isinstance(least, int):
        return []
    return [_value(schema["items"], root, depth + 1) for _ in range(min(least, 100))]


def _string(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(str(schema.get("format")), "sample")
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if isinstance(least, int):
        text = text.ljust(least, "x")
    return text[:most] if isinstance(most, int) else text


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    """1 where the bounds allow it, else the nearest value that they do."""
    step = _given(schema, "multipleOf") or (1 if whole else 0)
    beyond = step or 0.5
    low = max(_given(schema, "minimum", -math.inf), _given(schema, "exclusiveMinimum", -math.inf) + beyond)
    high = min(_given(schema, "maximum", math.inf), _given(schema, "exclusiveMaximum", math.inf) - beyond)
    value = min(max(1, low), high)
    if step:
        value = math.ceil(value / step) * step
        value = value - step if value > high else value
    return value


def _given(schema: Mapping[str, Any], key: str, otherwise: float = 0) -> float:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise
