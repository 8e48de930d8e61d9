"""Metadata is kept as it was given, in one order, and within its limit, by whichever way it is looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearance.authority import requests
from clearance.authority.interface import MAX_METADATA_BYTES
from clearance.authority.requests import check_metadata
from clearance.errors import InvalidRequest

PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def thorough(metadata: dict[str, Any]) -> dict[str, Any]:
    """What comes of it on the way through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(metadata, sort_keys=True))
    return found


@given(st.dictionaries(st.text(max_size=20), JSON, max_size=6))
def test_it_is_what_json_makes_of_it(metadata: dict[str, Any]) -> None:
    try:
        kept = check_metadata(metadata)
    except InvalidRequest:
        # Half a surrogate pair is no text.
        with pytest.raises(UnicodeEncodeError):
            json.dumps(metadata, ensure_ascii=False).encode()
        return
    assert kept == thorough(metadata)
    assert list(kept) == sorted(metadata)
    assert [type(value) for value in kept.values()] == [type(value) for value in thorough(metadata).values()]
    assert kept is not metadata


@pytest.mark.parametrize("letter", ["a", "\x00", '"', "é", "\u2028"])
def test_its_limit_is_the_same_whatever_it_is_made_of(letter: str) -> None:
    for length in (MAX_METADATA_BYTES // 7, MAX_METADATA_BYTES // 6, MAX_METADATA_BYTES // 2, MAX_METADATA_BYTES):
        metadata = {"k": letter * length}
        if len(json.dumps(metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
            with pytest.raises(InvalidRequest, match="bytes long"):
                check_metadata(metadata)
        else:
            assert check_metadata(metadata) == metadata


@pytest.mark.parametrize(
    "wrong", [{1: "a"}, {"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}, {"\ud800": 1}, {"a": object()}]
)
def test_what_is_no_json_is_refused(wrong: dict[Any, Any]) -> None:
    if wrong == {1: "a"}:
        assert check_metadata(wrong) == {"1": "a"}
        return
    with pytest.raises(InvalidRequest, match="metadata"):
        check_metadata(wrong)


def test_what_guards_send_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_way(*args: object, **options: object) -> str:
        raise AssertionError("no need")

    monkeypatch.setattr(requests.json, "dumps", long_way)
    assert check_metadata({"via": "langchain", "arguments_bytes": 17, "cached": False, "none": None})
