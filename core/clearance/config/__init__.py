"""`clearance.yaml`: where the ledger is, what models cost, and which budgets there should be.

    ledger: sqlite:///budget.db          # relative to this file
    durability: settlements              # power, settlements or process
    server:                              # of `clearance serve`; flags go first; the admin key is never in a file
      port: 7878
      admin_port: 7979
      store: sqlite:///budget.db         # default: ledger
      requests_per_second: 200
    prices:
      unknown: deny                      # deny, most_expensive, or a flat price in USD for each call such as "0.05"
      my-model: {input: "2.50", output: "10.00"}
    budgets:
      - scope: tenant:acme
        allocated: "12.50"
        unit: USD
        period: day                      # or {every: day, kind: rolling, timezone: Europe/Berlin}
        overdraft: "1.00"
        overage_policy: ALLOW_WITH_OVERDRAFT
        caps:
          - below: 20%
            max_tokens: 500
            models: [gpt-4o-mini]
            tools: {deny: [send_email]}
            cooldown: 2s
            max_steps_remaining: 5
          - approval_tools: [send_email, "pay_*"]   # each call needs a person's yes

`budgets` may also be a mapping from scope to the rest. Money is quoted text, so that it is read exactly.
"""

from clearance.config.amounts import parse_amount_of
from clearance.config.budgets import read_budget
from clearance.config.file import SECTIONS, Config, load, parse
from clearance.config.plan import Change, Plan, differences, plan, spec_of
from clearance.config.problems import ConfigInvalid, Problem, Report
from clearance.config.server import ServerOptions

__all__ = [
    "SECTIONS",
    "Change",
    "Config",
    "ConfigInvalid",
    "Plan",
    "Problem",
    "Report",
    "ServerOptions",
    "differences",
    "load",
    "parse",
    "parse_amount_of",
    "plan",
    "read_budget",
    "spec_of",
]
