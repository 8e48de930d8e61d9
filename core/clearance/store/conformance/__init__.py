"""What every Store must do, as a kit that anybody's engine can run.

    from clearance.store.conformance import run

    failures = run(MyLedger)        # with pytest: see `clearance.store.conformance.for_pytest`

`MyLedger()` makes a new, empty ledger: something with `open()`, which opens a Store on it and may be called again, and
`close()`, which removes it. Each spec gets a ledger of its own and says what it expected and what it got.
"""

from clearance.store.conformance import accounts, controls, log, racing, records, reservations, sharing, transactions
from clearance.store.conformance.kit import Failure, Ledger, NewLedger, Spec, specs_of

SPECS: tuple[Spec, ...] = tuple(
    spec
    for module in (transactions, accounts, reservations, log, controls, records, sharing, racing)
    for spec in specs_of(module)
)


def run(new_ledger: NewLedger, *, shared: bool = True) -> list[Failure]:
    """Every spec that fails, in order. `shared=False` for ledgers that only one Store can have open."""
    failures = (spec.failure(new_ledger) for spec in SPECS if shared or not spec.shared)
    return [failure for failure in failures if failure]


__all__ = ["SPECS", "Failure", "Ledger", "NewLedger", "Spec", "run"]
