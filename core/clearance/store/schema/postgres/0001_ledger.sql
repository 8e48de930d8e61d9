-- The ledger: budgets, reservations, controls, tenants, idempotency keys and the event log.
-- All amounts are whole numbers; times are epoch milliseconds. Names sort by their bytes, as in every other engine.
--
-- Every key holds the tenant, so that the tables can be distributed by it (Citus: SELECT create_distributed_table(
-- 'clearance.accounts', 'tenant'); stops, tenants, records and gates become reference tables). Reservations and
-- answers are looked up by an id that nobody but us can make, so their keys begin with it: one index serves both.
-- JSON is kept as text: an answer is replayed byte for byte, and nothing is refused that JSON allows (\u0000).

-- One budget, or the account of one run (scope 'run:<id>'). Remaining is never stored: it follows from the rest.
-- Only columns without an index change, and half of each page is free, so that an update stays on its page.
CREATE TABLE clearance.accounts (
    tenant          TEXT COLLATE "C" NOT NULL,
    scope           TEXT COLLATE "C" NOT NULL,
    unit            TEXT COLLATE "C" NOT NULL,
    allocated       BIGINT NOT NULL CHECK (allocated >= 0),
    reserved        BIGINT NOT NULL CHECK (reserved >= 0),
    spent           BIGINT NOT NULL CHECK (spent >= 0),
    debt            BIGINT NOT NULL CHECK (debt >= 0),
    over_limit      BOOLEAN NOT NULL,
    overdraft_limit BIGINT NOT NULL CHECK (overdraft_limit >= 0),
    status          TEXT NOT NULL CHECK (status IN ('ACTIVE', 'FROZEN', 'CLOSED')),
    overage_policy  TEXT,
    period          TEXT,
    period_start_ms BIGINT,
    period_end_ms   BIGINT,
    caps            TEXT,
    created_at_ms   BIGINT NOT NULL,
    PRIMARY KEY (tenant, scope, unit)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- Ids rise with time, so new rows go to the end of the index. due_at_ms is set while the reservation is open.
CREATE TABLE clearance.reservations (
    id              TEXT COLLATE "C" NOT NULL,
    tenant          TEXT COLLATE "C" NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('call', 'run')),
    status          TEXT COLLATE "C" NOT NULL CHECK (status IN ('ACTIVE', 'COMMITTED', 'RELEASED', 'EXPIRED')),
    unit            TEXT COLLATE "C" NOT NULL,
    estimate        BIGINT NOT NULL CHECK (estimate >= 0),
    charged         BIGINT CHECK (charged >= 0),
    actual          BIGINT CHECK (actual >= 0),
    scope_path      TEXT COLLATE "C" NOT NULL,
    run_id          TEXT COLLATE "C",
    created_at_ms   BIGINT NOT NULL,
    expires_at_ms   BIGINT NOT NULL,
    finalized_at_ms BIGINT,
    due_at_ms       BIGINT,
    extension_count BIGINT NOT NULL,
    idempotency_key TEXT,
    facts           TEXT NOT NULL,
    committed_facts TEXT,
    held_on         TEXT[] COLLATE "C" NOT NULL,
    CHECK ((status = 'ACTIVE') = (due_at_ms IS NOT NULL)),
    CHECK ((status = 'COMMITTED') = (charged IS NOT NULL)),
    PRIMARY KEY (id, tenant)
);

-- Open reservations only: what expires next, and what a kill must name.
CREATE INDEX reservations_open ON clearance.reservations (due_at_ms, tenant) WHERE due_at_ms IS NOT NULL;
CREATE INDEX reservations_open_in_run ON clearance.reservations (run_id)
    WHERE due_at_ms IS NOT NULL AND run_id IS NOT NULL;

-- Used keys: a hash of (tenant, endpoint, key), a hash of the payload, and the event that keeps the answer.
CREATE TABLE clearance.answers (
    key     BYTEA NOT NULL,
    tenant  TEXT COLLATE "C" NOT NULL,
    payload BYTEA NOT NULL,
    seq     BIGINT NOT NULL,
    PRIMARY KEY (key, tenant)
);

-- The stop button: one row a scope or run that was ever stopped; the empty tenant with scope '*' is everybody.
CREATE TABLE clearance.stops (
    tenant TEXT COLLATE "C" NOT NULL,
    scope  TEXT COLLATE "C" NOT NULL,
    state  TEXT NOT NULL CHECK (state IN ('RUNNING', 'PAUSED', 'KILLED')),
    reason TEXT NOT NULL,
    actor  TEXT NOT NULL,
    at_ms  BIGINT NOT NULL,
    PRIMARY KEY (tenant, scope)
);

-- Counts the changes of `stops`: whoever holds the locks of a batch sees by this one number whether any was made.
CREATE TABLE clearance.stops_version (version BIGINT NOT NULL);
INSERT INTO clearance.stops_version VALUES (0);

-- What a kill and a first grant lock where a tenant has no account to lock; the empty tenant is everybody's.
CREATE TABLE clearance.gates (tenant TEXT COLLATE "C" PRIMARY KEY);

CREATE TABLE clearance.tenants (
    tenant         TEXT COLLATE "C" PRIMARY KEY,
    status         TEXT NOT NULL,
    overage_policy TEXT,
    max_extensions BIGINT
);

-- Everything else that is looked up by name or by time: API keys, webhooks, deliveries, timers.
CREATE TABLE clearance.records (
    kind      TEXT COLLATE "C" NOT NULL,
    id        TEXT COLLATE "C" NOT NULL,
    tenant    TEXT COLLATE "C" NOT NULL,
    due_at_ms BIGINT,
    body      TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX records_of_tenant ON clearance.records (kind, tenant, id);
CREATE INDEX records_due ON clearance.records (kind, due_at_ms) WHERE due_at_ms IS NOT NULL;

-- The audit log. Append only.
CREATE TABLE clearance.events (
    seq            BIGINT NOT NULL,
    at_ms          BIGINT NOT NULL,
    tenant         TEXT COLLATE "C" NOT NULL,
    type           TEXT NOT NULL,
    scope          TEXT COLLATE "C",
    reservation_id TEXT COLLATE "C",
    data           TEXT NOT NULL,
    PRIMARY KEY (seq, tenant)
);
CREATE INDEX events_of_tenant ON clearance.events (tenant, seq);

-- A transaction takes one number after its locks, and 1,024 lines of the log with it: see clearance.store.postgres.log.
CREATE SEQUENCE clearance.numbers MINVALUE 0 START 0;
SELECT nextval('clearance.numbers');
