"""What a server's administration answers, as tables for people. Looks at nothing but the facts."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from clearance.cli.output import plain
from clearance.cli.views import pairs, styled, table_of
from clearance.cli.words import clock, money

Facts = dict[str, Any]


def _told(values: Facts) -> RenderableType:
    rows = [(name.replace("_", " "), _word(name, value)) for name, value in values.items()]
    return pairs(rows)


def _word(name: str, value: Any) -> str | Text:
    if name == "status":
        return styled(plain(value))
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{plain(key)}: {plain(inner)}" for key, inner in value.items())
    return plain(value)


def _table(items: list[Facts], columns: dict[str, str], nothing: str) -> RenderableType:
    if not items:
        return Text(nothing, style="dim")
    table = table_of(*columns)
    for item in items:
        table.add_row(*(_word(name, item.get(name, "-")) for name in columns.values()))
    return table


_TENANT = {"tenant": "tenant_id", "status": "status", "name": "name", "since": "created_at"}
_KEY = {"key": "key_id", "tenant": "tenant_id", "status": "status", "begins": "key_prefix", "name": "name"}
_KEY |= {"expires": "expires_at"}
_WEBHOOK = {"webhook": "subscription_id", "tenant": "tenant_id", "status": "status", "url": "url"}
_WEBHOOK |= {"types": "event_types", "failures": "consecutive_failures"}
_DELIVERY = {"event": "event_id", "type": "event_type", "status": "status", "attempts": "attempts"}
_DELIVERY |= {"last": "attempted_at", "answer": "response_status", "error": "error_message"}


def tenant(facts: Facts) -> RenderableType:
    parts = [_told(facts["tenant"])]
    if facts.get("created") is False:
        parts.append(Text("was there before and was not changed", style="dim"))
    if "keys" in facts:
        parts.append(_table(facts["keys"], _KEY, "no keys; `clearance key create` makes one"))
    return Group(*parts)


def tenants(facts: Facts) -> RenderableType:
    return _table(facts["tenants"], _TENANT, "no tenants; `clearance tenant create` makes one")


def keys(facts: Facts) -> RenderableType:
    return _table(facts["keys"], _KEY, "no keys")


def key(facts: Facts) -> RenderableType:
    return _told(facts["key"])


def new_key(facts: Facts) -> RenderableType:
    return _secret(facts["key"], "key_secret")


def new_webhook(facts: Facts) -> RenderableType:
    return _secret(facts["webhook"], "signing_secret")


def _secret(made: Facts, name: str) -> RenderableType:
    rest = {key: value for key, value in made.items() if key != name}
    note = Text("The secret is shown this once; keep it where secrets are kept.", style="yellow")
    # On a line of its own, so that no table folds it.
    return Group(_told(rest), Text(f"{name.replace('_', ' ')}: {plain(made[name])}", overflow="ignore"), note)


def webhook(facts: Facts) -> RenderableType:
    return _told(facts["webhook"])


def webhooks(facts: Facts) -> RenderableType:
    return _table(facts["webhooks"], _WEBHOOK, "no webhooks")


def deliveries(facts: Facts) -> RenderableType:
    return _table(facts["deliveries"], _DELIVERY, "nothing was delivered")


def replayed(facts: Facts) -> RenderableType:
    return _told(facts["replay"])


def journal(facts: Facts) -> RenderableType:
    if not facts["waiting"] and not any(it["quarantined"] for it in facts["partitions"]):
        return Text(f"nothing waits in {facts['folder']}", style="dim")
    parts: list[RenderableType] = []
    for partition in facts["partitions"]:
        parts.append(Text(plain(partition["folder"]), style="bold"))
        table = table_of("since", "amount", "action", "scope", "state", right=("amount",))
        for line in partition["waiting"]:
            amount = money(line["amount"], line["unit"] or "")
            table.add_row(clock(line["created_at_ms"] or None), amount, *map(plain, _line(line)))
        parts.append(table)
        parts += [Text(f"put aside: {plain(name)}", style="red") for name in partition["quarantined"]]
    return Group(*parts)


def _line(line: Facts) -> tuple[str, str, str]:
    state = line["problem"] or (f"refused: {line['refused']}" if line["refused"] else f"waits as {line['mode']}")
    return line["action"] or "-", line["scope"] or "-", state


def flushed(facts: Facts) -> RenderableType:
    return _told(facts)
