from __future__ import annotations

from pathlib import Path

import pytest

from clearance.config import ConfigInvalid, load, parse
from clearance.errors import InvalidRequest
from clearance.model.amount import tokens, usd

WHOLE = """
ledger: sqlite:///budget.db
durability: power
prices:
  unknown: "0.05"
  my-model: {input: "2.50", output: "10.00", max_output_tokens: 4096}
budgets:
  - scope: Tenant:ACME
    allocated: "12.50"
    unit: USD
    period: {every: month, kind: rolling}
    overdraft: 1
    overage_policy: allow_with_overdraft
    caps:
      - {below: 20%, max_tokens: 500, models: [a, b], tools: {allow: [x], deny: y}, cooldown: 2s,
         max_steps_remaining: 5}
      - {max_tokens: 9000}
  - {scope: tenant:acme, allocated: 1000, unit: tokens, period: day}
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    return str(caught.value)


def test_everything_is_read_exactly() -> None:
    config = parse(WHOLE)
    assert (config.ledger, config.durability, config.unknown) == ("sqlite:///budget.db", "power", usd("0.05"))
    money, counted = config.budgets
    assert (money.scope, money.allocated, money.overdraft_limit) == ("tenant:acme", usd("12.50"), 100_000_000)
    assert money.overage_policy == "ALLOW_WITH_OVERDRAFT"
    assert money.period is not None
    assert (money.period.every, money.period.kind) == ("month", "rolling")
    low, always = money.caps
    assert low.below_percent == 20
    assert (low.caps.max_tokens, low.caps.models, low.caps.cooldown_ms) == (500, ("a", "b"), 2000)
    assert (low.caps.tool_allowlist, low.caps.tool_denylist, low.caps.max_steps_remaining) == (("x",), ("y",), 5)
    assert always.below_percent is None
    assert counted.allocated == tokens(1000)
    assert config.price_book().explain("my-model")["source"] == "override"


def test_budgets_may_be_a_mapping() -> None:
    (spec,) = parse('budgets: {"tenant:acme/agent:bot": {allocated: "1"}}').budgets
    assert (spec.scope, spec.allocated) == ("tenant:acme/agent:bot", usd(1))


@pytest.mark.parametrize("text", ["", "budgets:", "budgets: []", "# nothing", "{}"])
def test_nothing_is_a_valid_configuration(text: str) -> None:
    assert parse(text).budgets == ()


BUDGET = "budgets: [{scope: tenant:a, allocated: %s}]"
BAD = [
    ("budgets: [", "clearance.yaml:1: is not YAML"),
    ("a: 1\n\tb: 2", "clearance.yaml:2: is not YAML"),
    ("- 1", "a list is not a mapping"),
    ("just text", "'just text' is not a mapping"),
    ("durabilty: power", "clearance.yaml:1: durabilty: is not known here; did you mean durability?"),
    ("durability: strong", "durability: 'strong' is unknown; allowed: power, settlements, process"),
    ("ledger: 5", "ledger: 5 is not a URL"),
    ("ledger: a\nledger: b", "clearance.yaml:2: ledger: is there twice, first in line 1"),
    ("!!python/object/apply:os.system [ls]", "is not a mapping"),
    ("ledger: !!python/name:os.system x", "has the tag"),
    ("ledger: &a [*a]", "nested too deeply"),
    ("ledger: " + "[" * 600, "nested too deeply"),
    (
        "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c]",
        "a: is not",
    ),
    (
        BUDGET % "12.50",
        '12.50 is not quoted, and YAML may read it inexactly; allowed: quote it: "12.50"',
    ),
    (BUDGET % "1e3", "budgets[0].allocated: '1e3' is not a plain decimal number"),
    (BUDGET % "1.0e+3", "is not quoted"),
    (BUDGET % ".inf", "is not quoted"),
    (BUDGET % "010", "is not quoted"),
    (BUDGET % "0x1F", "is not quoted"),
    (BUDGET % "1_000", "is not quoted"),
    (BUDGET % "1:30", "is not quoted"),
    (BUDGET % "9999999999999999999999", "is not quoted"),
    (BUDGET % "yes", "budgets[0].allocated: true is not an amount"),
    (BUDGET % "[1]", "budgets[0].allocated: a list is not an amount"),
    (BUDGET % "-1", "budgets[0].allocated: -1 is negative"),
    (BUDGET % "~", "budgets[0].allocated: is missing"),
    (BUDGET % "'1.123456789'", "finer than a microcent"),
    (BUDGET % "2.5, unit: TOKENS", "is not quoted"),
    (BUDGET % "'2.5', unit: TOKENS", "is not a whole number"),
    (BUDGET % "1, unit: EUR", "budgets[0].unit: 'EUR' is unknown"),
    (
        BUDGET % "1, period: fortnight",
        "budgets[0].period: 'fortnight' is not a period; allowed: hour, day, week, month",
    ),
    (BUDGET % "1, period: {every: dya}", "budgets[0].period.every: 'dya' is not a period; did you mean day?"),
    (BUDGET % "1, period: {every: day, kind: odd}", "budgets[0].period.kind: 'odd' is refused"),
    (BUDGET % "1, period: {every: day, timezone: Mars/X}", "budgets[0].period.timezone: 'Mars/X' is no time zone"),
    (BUDGET % "1, period: [day]", "budgets[0].period: a list is not a mapping"),
    (BUDGET % "1, overage_policy: maybe", "budgets[0].overage_policy: 'maybe' is unknown"),
    (BUDGET % "1, caps: {max_tokens: 1}", "budgets[0].caps: a mapping is not a list"),
    (BUDGET % "1, caps: [{}]", "budgets[0].caps[0]: limits nothing"),
    (BUDGET % "1, caps: [{below: 0%, max_tokens: 1}]", "budgets[0].caps[0].below: '0%' is not a share"),
    (BUDGET % "1, caps: [{max_tokens: 1.5}]", "budgets[0].caps[0].max_tokens: 1.5 is refused"),
    (BUDGET % "1, caps: [{tools: {alow: [x]}}]", "tools.alow: is not known here; did you mean allow?"),
    (BUDGET % "1, caps: [{tools: {allow: []}}]", "tools.allow: names no tool"),
    (BUDGET % "1, caps: [{tools: {allow: [x], deny: [x]}}]", "tools.deny: 'x' is allowed as well"),
    (BUDGET % "1, caps: [{models: [1]}]", "budgets[0].caps[0].models: 1 is not a name"),
    (BUDGET % "1, caps: [{cooldown: 5}]", "budgets[0].caps[0].cooldown: 5 is not a duration"),
    (BUDGET % ("1, caps: [" + "{max_tokens: 1}," * 17 + "]"), "budgets[0].caps"),
    ("budgets: [{allocated: 1}]", "budgets[0]: has no scope"),
    ("budgets: [5]", "budgets[0]: 5 is not a mapping"),
    ("budgets: 5", "budgets: 5 is not a list"),
    ("budgets: [{scope: 5, allocated: 1}]", "budgets[0].scope: 5 is not a scope"),
    ("budgets: [{scope: a/b, allocated: 1}]", "budgets[0].scope: 'a' is not a segment"),
    ("budgets: {x: {allocated: 1}}", "budgets.x.scope: 'x' is not a segment"),
    ('budgets: {"tenant:a": 5}', "budgets.tenant:a: 5 is not a mapping"),
    ('budgets: {"tenant:a": {scope: tenant:b, allocated: 1}}', "is the key of this entry already"),
    (
        "budgets:\n  - {scope: tenant:a, allocated: 1}\n  - {scope: TENANT:A, allocated: 2}",
        "clearance.yaml:3: budgets[1]: tenant:a in USD_MICROCENTS is there twice, first as budgets[0]",
    ),
    ("prices: 5", "prices: 5 is not a mapping"),
    ("prices: {unknown: dney}", "prices.unknown: 'dney' is not a policy; did you mean deny?"),
    ("prices: {unknown: 0.05}", "prices.unknown: 0.05 is not quoted"),
    ("prices: {unknown: '0'}", "would make unknown models free"),
    ("prices: {m: {input: 2.5, output: '1'}}", "prices.m.input: 2.5 is not quoted"),
    ("prices: {m: {input: '1'}}", "prices.m: has no output"),
    ("prices: {m: {input: '1', output: '1', cached: '1'}}", "prices.m.cached: is not known here; did you mean"),
    ("prices: {m: {input: '-1', output: '1'}}", "prices.m.input: '-1' is not a price"),
    ("prices: {m: {input: '1', output: '1'}, M: {input: '1', output: '1'}}", "prices.M: is there twice"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text[:50] for text, _ in BAD])
def test_bad_configuration_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refused(text)


def test_all_problems_come_at_once_with_their_lines() -> None:
    text = "durability: x\nbudgets:\n  - scope: y\n    allocated: 1.5\n    perod: day\n"
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert [(it.line, it.path) for it in caught.value.problems] == [
        (1, "durability"),
        (3, "budgets[0].scope"),
        (4, "budgets[0].allocated"),
        (5, "budgets[0].perod"),
    ]
    assert caught.value.details["problems"][0]["problem"] == "'x' is unknown"


def test_parts_that_are_not_asked_for_may_be_wrong() -> None:
    text = "ledger: a.db\nbudgets: 5\nprices: 5\n"
    assert parse(text, sections=("ledger",)).ledger == "a.db"
    with pytest.raises(ConfigInvalid, match="durabilty"):
        parse("durabilty: power", sections=("ledger",))


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("sqlite:///x.db", "sqlite:///{folder}/x.db"),
        ("x.db", "{folder}/x.db"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("/var/x.db", "/var/x.db"),
        ("memory://", "memory://"),
    ],
)
def test_a_relative_ledger_lies_beside_the_file(tmp_path: Path, written: str, url: str) -> None:
    config = parse(f"ledger: {written}", str(tmp_path / "clearance.yaml"))
    assert config.ledger_url == url.format(folder=tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InvalidRequest, match="is a folder"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"ledger: a\n# caf\xe9\n")
    with pytest.raises(InvalidRequest, match=r"latin\.yaml:2: is not UTF-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(InvalidRequest, match="at most 1,000,000"):
        load(tmp_path / "big.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfledger: a.db\n")
    assert load(tmp_path / "bom.yaml").ledger == "a.db"
