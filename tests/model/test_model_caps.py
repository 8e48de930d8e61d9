"""Caps: when they apply, what they allow, and that merging only tightens."""

from __future__ import annotations

from typing import Any

import pytest

from clearance.errors import InvalidRequest
from clearance.model.caps import NO_TOOL, Caps, CapsRule, merge


@pytest.mark.parametrize(
    ("caps", "allowed", "refused"),
    [
        (Caps(), ["any"], []),
        (Caps(tool_allowlist=("a",)), ["a"], ["b", "A"]),
        (Caps(tool_denylist=("a",)), ["b", "A"], ["a"]),
        (Caps(tool_allowlist=("a",), tool_denylist=("a",)), ["a"], ["b"]),
    ],
)
def test_an_allowlist_decides_alone_else_the_denylist(caps: Caps, allowed: list[str], refused: list[str]) -> None:
    assert all(caps.allows_tool(name) for name in allowed)
    assert not any(caps.allows_tool(name) for name in refused)


@pytest.mark.parametrize(
    ("percent", "remaining", "allocated", "applies"),
    [
        (None, 1000, 1000, True),
        (20, 200, 1000, False),
        (20, 199, 1000, True),
        (20, -5, 1000, True),
        (100, 1000, 1000, False),
        (100, 999, 1000, True),
        (1, 0, 10, True),
    ],
)
def test_a_rule_applies_always_or_below_its_share(
    percent: int | None, remaining: int, allocated: int, applies: bool
) -> None:
    assert CapsRule(caps=Caps(), below_percent=percent).applies(remaining, allocated) is applies


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ({"max_tokens": 5}, {"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_tokens": 0}, {}, {"max_tokens": 0}),
        ({"max_steps_remaining": 2}, {"max_steps_remaining": 9}, {"max_steps_remaining": 2}),
        ({"cooldown_ms": 10}, {"cooldown_ms": 500}, {"cooldown_ms": 500}),
        ({"tool_allowlist": ("a", "b")}, {"tool_allowlist": ("b", "c")}, {"tool_allowlist": ("b",)}),
        ({"tool_allowlist": ("a",)}, {"tool_allowlist": ("b",)}, {"tool_allowlist": (NO_TOOL,)}),
        ({"tool_denylist": ("b",)}, {"tool_denylist": ("a",)}, {"tool_denylist": ("a", "b")}),
        ({"tool_allowlist": ("a", "b")}, {"tool_denylist": ("b",)}, {"tool_allowlist": ("a",)}),
        ({"tool_allowlist": ("a",)}, {"tool_denylist": ("a",)}, {"tool_allowlist": (NO_TOOL,)}),
        ({"models": ("big", "small")}, {"models": ("small", "big")}, {"models": ("big", "small")}),
        ({"models": ("big",)}, {"models": ("small",)}, {"models": (NO_TOOL,)}),
        ({"approval_tools": ("b", "a*")}, {"approval_tools": ("b",)}, {"approval_tools": ("a*", "b")}),
        ({"approval_tools": ("b",)}, {}, {"approval_tools": ("b",)}),
    ],
)
def test_the_tightest_of_all_caps_holds(first: dict[str, Any], second: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge([Caps(**first), Caps(**second)]) == Caps(**merged)


def test_nothing_to_merge_is_no_caps_and_one_stays_as_it_is() -> None:
    assert merge([]) is None
    assert merge([Caps(max_tokens=1)]) == Caps(max_tokens=1)


@pytest.mark.parametrize("percent", [0, 101, -1, 1.5, "20"])
def test_a_share_is_a_whole_percentage(percent: Any) -> None:
    with pytest.raises(InvalidRequest):
        CapsRule(caps=Caps(), below_percent=percent)


@pytest.mark.parametrize(
    "fields", [{"max_tokens": -1}, {"max_tokens": 1.0}, {"cooldown_ms": True}, {"tool_allowlist": [""]}, {"tokens": 1}]
)
def test_bad_caps_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Caps(**fields)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("pay", ["pay"], ["pays", "PAY", "", "xpay"]),
        ("pay_*", ["pay_", "pay_x", "pay_x_y"], ["pay", "repay_x"]),
        ("*mail*", ["mail", "send_mail", "mails"], ["male"]),
        ("*", ["x", ""], []),
        ("a[b]?", ["a[b]?"], ["ab", "abx", "a[b]x"]),
        ("a[b]*", ["a[b]", "a[b]c"], ["ab", "abc"]),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_does(pattern: str, matching: list[str], others: list[str]) -> None:
    caps = Caps(approval_tools=(pattern,))
    assert all(caps.needs_approval(name) for name in matching)
    assert not any(caps.needs_approval(name) for name in others)


@pytest.mark.parametrize(
    ("caps", "told"),
    [
        ({"models": ("a",), "max_tokens": 5}, {"max_tokens": 5}),
        ({"approval_tools": ("a", "b")}, {"tool_denylist": ["a", "b"]}),
        ({"approval_tools": ("us*",), "tool_denylist": ("z",)}, {"tool_denylist": ["used", "z"]}),
        ({"approval_tools": ("other*",)}, {}),
        ({"approval_tools": ("us*",), "tool_allowlist": ("used", "x")}, {"tool_allowlist": ["x"]}),
        ({"approval_tools": ("*",), "tool_allowlist": ("used", "x")}, {"tool_allowlist": [NO_TOOL]}),
    ],
)
def test_a_client_of_the_protocol_is_denied_what_needs_an_approval(caps: dict[str, Any], told: dict[str, Any]) -> None:
    assert Caps(**caps).of_the_protocol("used").wire == told


def test_only_what_is_set_goes_over_the_wire() -> None:
    assert Caps(max_tokens=0, tool_denylist=("a",)).wire == {"max_tokens": 0, "tool_denylist": ["a"]}
