-- The ledger: budgets, reservations, controls, tenants, idempotency keys and the event log.
-- All amounts are whole numbers; times are epoch milliseconds.

-- One budget, or the account of one run (scope 'run:<id>'). Remaining is never stored: it follows from the rest.
CREATE TABLE accounts (
    tenant          TEXT NOT NULL,
    scope           TEXT NOT NULL,
    unit            TEXT NOT NULL,
    allocated       INTEGER NOT NULL CHECK (allocated >= 0),
    reserved        INTEGER NOT NULL CHECK (reserved >= 0),
    spent           INTEGER NOT NULL CHECK (spent >= 0),
    debt            INTEGER NOT NULL CHECK (debt >= 0),
    over_limit      INTEGER NOT NULL CHECK (over_limit IN (0, 1)),
    overdraft_limit INTEGER NOT NULL CHECK (overdraft_limit >= 0),
    status          TEXT NOT NULL CHECK (status IN ('ACTIVE', 'FROZEN', 'CLOSED')),
    overage_policy  TEXT,
    period          TEXT,
    period_start_ms INTEGER,
    period_end_ms   INTEGER,
    caps            TEXT,
    created_at_ms   INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope, unit)
) STRICT, WITHOUT ROWID;

-- Ids rise with time, so new rows go to the end of the index.
CREATE TABLE reservations (
    id              TEXT PRIMARY KEY,
    tenant          TEXT NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('call', 'run')),
    status          TEXT NOT NULL CHECK (status IN ('ACTIVE', 'COMMITTED', 'RELEASED', 'EXPIRED')),
    unit            TEXT NOT NULL,
    estimate        INTEGER NOT NULL CHECK (estimate >= 0),
    charged         INTEGER,
    actual          INTEGER,
    scope_path      TEXT NOT NULL,
    run_id          TEXT,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL,
    finalized_at_ms INTEGER,
    due_at_ms       INTEGER,
    extension_count INTEGER NOT NULL,
    idempotency_key TEXT,
    facts           TEXT NOT NULL,
    committed_facts TEXT
) STRICT;

-- Open reservations only: what expires next, and what a kill must name.
CREATE INDEX reservations_open ON reservations (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX reservations_open_in_run ON reservations (run_id) WHERE due_at_ms IS NOT NULL AND run_id IS NOT NULL;

-- Used keys: a hash of (tenant, endpoint, key), a hash of the payload, and the event that keeps the answer.
CREATE TABLE answers (
    key     BLOB PRIMARY KEY,
    payload BLOB NOT NULL,
    seq     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The stop button: one row a scope or run that was ever stopped; the empty tenant with scope '*' is everybody.
CREATE TABLE stops (
    tenant TEXT NOT NULL,
    scope  TEXT NOT NULL,
    state  TEXT NOT NULL CHECK (state IN ('RUNNING', 'PAUSED', 'KILLED')),
    reason TEXT NOT NULL,
    actor  TEXT NOT NULL,
    at_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    tenant         TEXT PRIMARY KEY,
    status         TEXT NOT NULL,
    overage_policy TEXT,
    max_extensions INTEGER
) STRICT, WITHOUT ROWID;

-- Everything else that is looked up by name or by time: API keys, webhooks, deliveries, timers.
CREATE TABLE records (
    kind      TEXT NOT NULL,
    id        TEXT NOT NULL,
    tenant    TEXT NOT NULL,
    due_at_ms INTEGER,
    body      TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_of_tenant ON records (kind, tenant, id);
CREATE INDEX records_due ON records (kind, due_at_ms) WHERE due_at_ms IS NOT NULL;

-- The audit log. Append only.
CREATE TABLE events (
    seq            INTEGER PRIMARY KEY,
    at_ms          INTEGER NOT NULL,
    tenant         TEXT NOT NULL,
    type           TEXT NOT NULL,
    scope          TEXT,
    reservation_id TEXT,
    data           TEXT NOT NULL
) STRICT;
