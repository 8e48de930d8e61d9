"""What must hold in the tables, whatever happened. Each query finds violations and words for them."""

from __future__ import annotations

from clearance.store.postgres.log import LINES

_HELD = (
    "SELECT r.tenant, s.scope, r.unit, sum(r.estimate) AS held FROM clearance.reservations r "
    "CROSS JOIN LATERAL unnest(r.held_on) s(scope) WHERE r.due_at_ms IS NOT NULL GROUP BY 1, 2, 3"
)
CHECKS = (
    # reserved is the sum of the open reservations that are held on the account
    "SELECT format('%1$s in %2$s has %3$s reserved, its open reservations hold %4$s', coalesce(a.scope, h.scope), "
    "coalesce(a.unit, h.unit), coalesce(a.reserved::text, 'no account'), coalesce(h.held, 0)) "
    f"FROM clearance.accounts a FULL JOIN ({_HELD}) h USING (tenant, scope, unit) "
    "WHERE coalesce(a.reserved, 0) <> coalesce(h.held, 0) OR (a.scope IS NULL AND h.held > 0)",
    # a run's account lives as long as the run
    "SELECT format('%1$s has an account but is not open', a.scope) FROM clearance.accounts a "
    "WHERE starts_with(a.scope, 'run:') AND NOT EXISTS (SELECT FROM clearance.reservations r "
    "WHERE r.id = substr(a.scope, 5) AND r.tenant = a.tenant AND r.due_at_ms IS NOT NULL)",
    # an answer can be replayed
    "SELECT format('a used key of %1$s points to event %2$s, which is missing', n.tenant, n.seq) "
    "FROM clearance.answers n WHERE NOT EXISTS (SELECT FROM clearance.events e WHERE e.seq = n.seq)",
    # every reservation that was settled has its line in the log, once
    "SELECT format('%1$s was settled %2$s times', e.reservation_id, count(*)) FROM clearance.events e WHERE e.type IN "
    "('reservation.committed', 'reservation.released', 'reservation.expired', 'run.ended') "
    "GROUP BY e.reservation_id HAVING count(*) > 1",
    "SELECT format('%1$s is %2$s, but the log does not say so', r.id, r.status) FROM clearance.reservations r "
    "WHERE r.due_at_ms IS NULL AND NOT EXISTS (SELECT FROM clearance.events e WHERE e.reservation_id = r.id)",
    # numbers rise
    f"SELECT format('event %1$s lies beyond the last number %2$s', max(e.seq), n.last_value) FROM clearance.events e, "
    f"clearance.numbers n GROUP BY n.last_value HAVING max(e.seq) / {LINES} > n.last_value",
    # what the engine relies on is in force
    "SELECT format('index %1$s is not valid: REINDEX it', c.relname) FROM pg_index i JOIN pg_class c ON "
    "c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'clearance' AND NOT i.indisvalid",
    "SELECT format('constraint %1$s is not validated', c.conname) FROM pg_constraint c JOIN pg_namespace n ON "
    "n.oid = c.connamespace WHERE n.nspname = 'clearance' AND NOT c.convalidated",
)
