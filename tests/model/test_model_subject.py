"""Who acts, which scopes follow, and what is no name."""

from __future__ import annotations

from typing import Any

import pytest

from clearance.errors import InvalidRequest
from clearance.model.action import Action, action
from clearance.model.subject import Subject, covers, parse_scope, tenant_of


@pytest.mark.parametrize(
    ("levels", "scopes"),
    [
        ({"tenant": "acme", "agent": "bot"}, ("tenant:acme", "tenant:acme/agent:bot")),
        (
            {"tenant": "acme", "workspace": "w", "agent": "b"},
            ("tenant:acme", "tenant:acme/workspace:w", "tenant:acme/workspace:w/agent:b"),
        ),
        ({"agent": "bot"}, ("agent:bot",)),
        ({"tenant": "AcMe", "toolset": "Web_1.0-x"}, ("tenant:acme", "tenant:acme/toolset:web_1.0-x")),
        (
            {"toolset": "6", "agent": "5", "workflow": "4", "app": "3", "workspace": "2", "tenant": "1"},
            (
                "tenant:1",
                "tenant:1/workspace:2",
                "tenant:1/workspace:2/app:3",
                "tenant:1/workspace:2/app:3/workflow:4",
                "tenant:1/workspace:2/app:3/workflow:4/agent:5",
                "tenant:1/workspace:2/app:3/workflow:4/agent:5/toolset:6",
            ),
        ),
    ],
)
def test_scopes_are_the_cumulative_prefixes_root_first(levels: dict[str, str], scopes: tuple[str, ...]) -> None:
    assert Subject(**levels).scopes == scopes
    assert Subject(**levels).scope_path == scopes[-1]


def test_the_subject_keeps_its_case_and_its_dimensions() -> None:
    subject = Subject(tenant="AcMe", dimensions={"Run": "X/ö"})
    assert subject.wire == {"tenant": "AcMe", "dimensions": {"Run": "X/ö"}}


def test_a_subject_without_a_tenant_belongs_to_the_default_one() -> None:
    assert Subject(agent="bot").tenant_key == "default"
    assert Subject(tenant="ACME").tenant_key == "acme"


def test_narrowing_fills_in_and_overrides_nothing() -> None:
    narrowed = Subject(tenant="acme", dimensions={"a": "b"}).narrowed(tenant="other", agent="bot")
    assert narrowed == Subject(tenant="acme", agent="bot", dimensions={"a": "b"})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "subject"),
        ({"dimensions": {"a": "b"}}, "subject"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": "a:b"}, "tenant"),
        ({"tenant": "a\n"}, "tenant"),
        ({"tenant": "ä"}, "tenant"),
        ({"tenant": "*"}, "tenant"),
        ({"tenant": "x" * 129}, "tenant"),
        ({"tenant": 5}, "tenant"),
        ({"tenant": "a", "user": "b"}, "user"),
        ({"tenant": "a", "dimensions": {str(n): "" for n in range(17)}}, "dimensions"),
        ({"tenant": "a", "dimensions": {"k": "v" * 257}}, "dimensions.k"),
        ({"tenant": "a", "dimensions": {"k": 5}}, "dimensions.k"),
        ({"tenant": "a", "dimensions": {"k": "\ud800"}}, "dimensions.k"),
    ],
)
def test_a_bad_subject_is_refused_with_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Subject(**fields)
    assert refused.value.field == field


def test_the_longest_subject_is_accepted() -> None:
    dimensions = {str(n): "v" * 256 for n in range(16)}
    assert Subject(tenant="x" * 128, dimensions=dimensions).scopes == ("tenant:" + "x" * 128,)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("tenant:acme", "tenant:acme"),
        (" Tenant:ACME/Agent:Bot ", "tenant:acme/agent:bot"),
        ("agent:bot", "agent:bot"),
    ],
)
def test_a_scope_is_read_in_any_case(text: str, scope: str) -> None:
    assert parse_scope(text) == scope


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "tenant:",
        "tenant:acme/",
        "/tenant:acme",
        "tenant:acme//agent:b",
        "agent:b/tenant:acme",
        "tenant:a/tenant:b",
        "run:abc",
        "user:me",
        "tenant:a b",
        "tenant:a:b",
        "tenant:*",
        "tenant:" + "x" * 129,
        None,
        5,
    ],
)
def test_what_is_no_scope_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_scope(text)
    assert refused.value.field in ("scope", "tenant")
    assert refused.value.allowed


@pytest.mark.parametrize(
    ("scope", "path", "below"),
    [
        ("tenant:a", "tenant:a", True),
        ("tenant:a", "tenant:a/agent:b", True),
        ("tenant:a", "tenant:ab", False),
        ("tenant:a/agent:b", "tenant:a", False),
        ("tenant:a/agent:b", "tenant:a/agent:bc", False),
    ],
)
def test_a_scope_covers_itself_and_what_lies_below(scope: str, path: str, below: bool) -> None:
    assert covers(scope, path) is below


def test_the_tenant_of_a_scope() -> None:
    assert tenant_of("tenant:acme/agent:bot") == "acme"
    assert tenant_of("agent:bot") == "default"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "", "name": "n"}, "kind"),
        ({"kind": " ", "name": "n"}, "kind"),
        ({"kind": "k", "name": "\t"}, "name"),
        ({"kind": "k" * 65, "name": "n"}, "kind"),
        ({"kind": "k", "name": "n" * 257}, "name"),
        ({"kind": "k", "name": 5}, "name"),
        ({"kind": "k", "name": "n", "tags": ["t"] * 11}, "tags"),
        ({"kind": "k", "name": "n", "tags": ["t" * 65]}, "tags.0"),
    ],
)
def test_a_bad_action_is_refused_with_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Action(**fields)
    assert refused.value.field == field


def test_an_action_is_a_kind_and_a_name() -> None:
    assert action("tool.call:search") == Action(kind="tool.call", name="search")
    assert action("deploy") == Action(kind="deploy", name="deploy")
    assert Action(kind="k", name="n", tags=("a",)).wire == {"kind": "k", "name": "n", "tags": ["a"]}
