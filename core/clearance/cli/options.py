"""Arguments and options of the budget commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Text = str | None
Names = list[str] | None
_CAPS = "Caps (together they replace the caps that the budget has)"


def _option(name: str, help: str, panel: str | None = None) -> Any:
    return typer.Option(name, help=help, rich_help_panel=panel)


Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="Such as tenant:acme/agent:bot.")]
AmountText = Annotated[
    str, typer.Argument(metavar="AMOUNT", help="Dollars such as 12.50, or a whole number of the unit.")
]
UnitName = Annotated[str, _option("--unit", "USD (dollars), USD_MICROCENTS, TOKENS, CREDITS or RISK_POINTS.")]
Why = Annotated[Text, _option("--reason", "Why; it stands in the audit log.")]
Every = Annotated[Text, _option("--period", "hour, day, week or month; none ends it.")]
Rolling = Annotated[bool, _option("--rolling", "Periods begin at the first use, not by the calendar.")]
Timezone = Annotated[Text, _option("--timezone", "Of calendar periods, such as Europe/Berlin.")]
Overdraft = Annotated[Text, _option("--overdraft", "How much may be owed, in the same unit.")]
Policy = Annotated[
    Text, _option("--overage-policy", "REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT; none: the default.")
]
Below = Annotated[Text, _option("--below", "Caps apply once less than this remains, such as 20%.", _CAPS)]
MaxTokens = Annotated[int | None, _option("--max-tokens", "Output tokens of a call.", _CAPS)]
MaxSteps = Annotated[int | None, _option("--max-steps-remaining", "Steps left to a run.", _CAPS)]
AllowTool = Annotated[Names, _option("--allow-tool", "Only these tools; repeat it.", _CAPS)]
DenyTool = Annotated[Names, _option("--deny-tool", "Not these tools; repeat it.", _CAPS)]
ApproveTool = Annotated[
    Names, _option("--approve-tool", "These only with a person's approval; repeat it, * is any text.", _CAPS)
]
OnlyModel = Annotated[Names, _option("--model", "Only these models; repeat it.", _CAPS)]
Cooldown = Annotated[Text, _option("--cooldown", "Wait between calls, such as 2s.", _CAPS)]
NoCaps = Annotated[bool, _option("--no-caps", "Take all caps away.", _CAPS)]
