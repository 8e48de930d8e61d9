"""What a batch holds, and the one pipeline that takes it.

The rules that make everything else simple:

1. A batch takes what it is known to need at once, in the order gates, accounts, reservations, each by key. Only this
   waits. What turns out to be needed later is taken without waiting; if somebody has it, the batch is rolled back and
   run again with it among what it takes at once. So there is no cycle of waiting, and no deadlock.
2. Stops and tenants are read in a statement after the locks. When more locks are taken they are read again, and if they
   differ from what an operation may have seen, the batch is run again.
3. A kill or the end of a tenant takes every account of the tenant, and the tenant's gate; a grant holds an account of
   the tenant, or the gate. So either the grant is committed before the kill reads what is in flight, and is named in
   its answer, or it reads the stops after the kill's commit. The same holds for `*` with everybody's accounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clearance.store.interface import AccountKey, Needs
from clearance.store.postgres import statements as sql
from clearance.store.postgres.rows import columns, is_name
from clearance.store.postgres.wire import Statement

EVERYBODY = ""
"""As a tenant: all of them."""


@dataclass
class Wanted:
    """What is to be locked and read."""

    accounts: set[AccountKey] = field(default_factory=set)
    reservations: set[str] = field(default_factory=set)
    gates: set[str] = field(default_factory=set)
    whole_tenants: set[str] = field(default_factory=set)
    tenants: set[str] = field(default_factory=set)
    answers: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, needs: Iterable[Needs]) -> Wanted:
        wanted = cls()
        for need in needs:
            for tenant, scopes, units in need.accounts:
                wanted.tenants.add(tenant)
                wanted.accounts.update([(tenant, scope, unit) for unit in units for scope in scopes])
            wanted.reservations.update(filter(is_name, need.reservations))
            wanted.answers.extend(need.answers)
        return wanted

    def add_locks(self, other: Wanted) -> None:
        self.accounts |= other.accounts
        self.reservations |= other.reservations
        self.gates |= other.gates
        self.whole_tenants |= other.whole_tenants

    # -- statements; each is () when there is nothing for it ------------------------------------

    def gate_locks(self, nowait: bool) -> Sequence[Statement]:
        gates = sorted(self.gates | self.whole_tenants)
        if not gates:
            return ()
        return (sql.MAKE_GATES, (gates,)), (sql.LOCK_GATES + (sql.NOWAIT if nowait else ""), (gates,))

    def account_locks(self, nowait: bool) -> Sequence[Statement]:
        if not (self.accounts or self.reservations or self.whole_tenants):
            return ()
        ending = sql.NOWAIT if nowait else ""
        if EVERYBODY in self.whole_tenants:
            return _twice((sql.LOCK_EVERYBODYS_ACCOUNTS + ending, ()))
        names = columns(sorted(self.accounts)) or [[], [], []]
        ids = sorted(self.reservations)
        if self.whole_tenants:
            return _twice((sql.LOCK_TENANTS_ACCOUNTS + ending, [*names, ids, sorted(self.whole_tenants)]))
        if ids:
            return ((sql.LOCK_ACCOUNTS_AND_HOLDERS + ending, [*names, ids]),)
        return ((sql.LOCK_ACCOUNTS + ending, names),)

    def reservation_locks(self, nowait: bool) -> Sequence[Statement]:
        if not self.reservations:
            return ()
        return ((sql.LOCK_RESERVATIONS + (sql.NOWAIT if nowait else ""), (sorted(self.reservations),)),)

    def answer_reads(self) -> Sequence[Statement]:
        return ((sql.GET_ANSWERS, (self.answers,)),) if self.answers else ()

    def tenant_reads(self) -> Sequence[Statement]:
        """Also those of the reservations: whoever settles one asks whether its tenant is open."""
        if self.reservations:
            return ((sql.GET_TENANTS_AND_OWNERS, (sorted(self.tenants), sorted(self.reservations))),)
        return ((sql.GET_TENANTS_NAMED, (sorted(self.tenants),)),) if self.tenants else ()


def _twice(statement: Statement) -> Sequence[Statement]:
    """The second look finds accounts that came while the first one waited: see `PostgresTransaction._take`."""
    return statement, statement
