"""Tools that need a person's approval, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearance.connecting import LocalAuthority
from clearance.model.caps import Caps, CapsRule

Cli = Callable[..., Any]


def test_tools_that_need_an_approval_are_named_and_shown(cli: Cli, ledger: LocalAuthority) -> None:
    made = cli("budget", "set", "tenant:new", "5", "--approve-tool", "send_email", "--approve-tool", "pay_*")
    assert made.code == 0, made.err
    assert ledger.balance("tenant:new").caps == (CapsRule(caps=Caps(approval_tools=("send_email", "pay_*"))),)
    assert "approval_tools send_email, pay_*" in cli("budget", "show", "tenant:new").out
