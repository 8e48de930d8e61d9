"""What an operator does to an authority: stop and resume work, make, fund and close budgets, close tenants."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from clearance.authority import answers, budgets, controls, lifecycle
from clearance.authority.batch import Operation
from clearance.authority.operating import Operating, write
from clearance.authority.requests import check_key, check_kind, check_remark, place_of
from clearance.ledger.funding import FundingOperation
from clearance.model.account import ACTIVE, CLOSED, FROZEN
from clearance.model.amount import Amount, AmountLike, Unit, parse_unit, to_amount
from clearance.model.balance import Balance
from clearance.model.results import Stop
from clearance.model.subject import Subject, parse_scope, tenant_of
from clearance.store.interface import Changes, Needs, Transaction


class Administration(Operating):
    """The operator's verbs of an embedded authority."""

    # -- the stop button --------------------------------------------------------------------------

    def kill(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        """Stop everything below a scope, a run (`run:<id>`) or everybody (`*`), until `resume`.

        Once this has answered, no reservation below is granted, by any process. What is in flight is named in the
        answer and may still settle.
        """
        return self._control(scope, "KILLED", reason, actor)

    def pause(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        """Like `kill`, for work that is meant to go on later."""
        return self._control(scope, "PAUSED", reason, actor)

    def resume(self, scope: str, *, reason: str, actor: str | None = None) -> Stop:
        return self._control(scope, "RUNNING", reason, actor)

    def _control(self, scope: str, state: controls.State, reason: str, actor: str | None) -> Stop:
        target = controls.parse_target(scope)
        reason, actor = controls.check_words(reason, actor or current_user())

        def apply(tx: Transaction) -> Stop:
            return controls.control(tx, target, state, reason, actor, self._clock.now_ms())

        return self._batch.run(Operation(apply, self._flush_settlements))

    def stopped(self, reservation_ids: Collection[str]) -> dict[str, Stop]:
        with self._store.read() as reader:
            return reader.open_stops(list(reservation_ids))

    # -- budgets ----------------------------------------------------------------------------------

    def set_budget(self, spec: budgets.BudgetSpec, *, must_be_new: bool = False) -> Balance:
        """Create a budget or bring it to its spec; what was spent and is held stays."""
        check_kind(spec, budgets.BudgetSpec, "spec")
        needs = _accounts((spec.scope, spec.allocated.unit))
        return self._budget(lambda tx, now_ms: budgets.put(tx, spec, now_ms, must_be_new=must_be_new), needs)

    def apply_budgets(self, specs: Sequence[budgets.BudgetSpec]) -> list[Balance]:
        """All of them in one transaction, or none."""

        def apply(tx: Transaction) -> list[Balance]:
            now_ms = self._clock.now_ms()
            found = []
            for spec in specs:
                account, changes = budgets.put(tx, spec, now_ms)
                tx.write(changes, now_ms)
                found.append(Balance.of(account))
            return found

        needs = _accounts(*((spec.scope, spec.allocated.unit) for spec in specs))
        return self._batch.run(Operation(apply, self._flush_settlements, needs))

    def fund(
        self,
        scope: str,
        operation: FundingOperation,
        amount: AmountLike,
        *,
        spent: Amount | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> Balance:
        """CREDIT, DEBIT, RESET, RESET_SPENT or REPAY_DEBT (protocol section 17.1)."""
        funding = budgets.check_funding(scope, operation, to_amount(amount, "amount"), spent, reason)
        key = check_key(idempotency_key)
        place = place_of(tenant_of(funding.scope), "fund", key, list(funding)) if key else None

        def apply(tx: Transaction) -> Balance:
            replay = self._replayed(tx, place)
            if replay is not None:
                return answers.balance(replay)
            now_ms = self._clock.now_ms()
            account, changes = budgets.funded(tx, funding, now_ms)
            return write(tx, place, now_ms, Balance.of(account), changes)

        needs = _accounts((funding.scope, funding.unit))._replace(answers=(place.key,) if place else ())
        return self._batch.run(Operation(apply, self._flush_settlements, needs))

    def freeze(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        """No new holds on this budget; what is held may settle."""
        return self._status(scope, unit, FROZEN, reason)

    def unfreeze(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        return self._status(scope, unit, ACTIVE, reason)

    def close_budget(self, scope: str, unit: Unit = Unit.USD_MICROCENTS, *, reason: str = "") -> Balance:
        """For good."""
        return self._status(scope, unit, CLOSED, reason)

    def _status(self, scope: str, unit: Unit, status: str, reason: str) -> Balance:
        path, kept_in = parse_scope(scope), parse_unit(unit).value
        check_remark(reason, "reason", 512)
        needs = _accounts((path, kept_in))
        return self._budget(lambda tx, _: budgets.with_new_status(tx, path, kept_in, status, reason), needs)

    def _budget(self, change: Callable[[Transaction, int], tuple[Any, Changes]], needs: Needs) -> Balance:
        def apply(tx: Transaction) -> Balance:
            now_ms = self._clock.now_ms()
            account, changes = change(tx, now_ms)
            tx.write(changes, now_ms)
            return Balance.of(account)

        return self._batch.run(Operation(apply, self._flush_settlements, needs))

    def close_tenant(self, tenant: str) -> None:
        """For good: releases open calls, charges open runs what they spent, closes the budgets."""
        key = Subject(tenant=tenant).tenant_key

        def apply(tx: Transaction) -> None:
            if (row := tx.tenant(key)) is None or row.status != CLOSED:
                lifecycle.close_tenant(tx, key, self._clock.now_ms())

        self._batch.run(Operation(apply, self._flush_settlements))


def _accounts(*names: tuple[str, str]) -> Needs:
    """Of (scope, unit)."""
    return Needs(accounts=[(tenant_of(scope), (scope,), (str(unit),)) for scope, unit in names])


def current_user() -> str:
    return (
        os.environ.get("USER") or os.environ.get("USERNAME") or f"uid {os.getuid() if hasattr(os, 'getuid') else '?'}"
    )
