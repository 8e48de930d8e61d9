"""The SQL of the PostgreSQL engine, each statement with a name.

Locks are taken in one order everywhere: gates, accounts, reservations; within a table by key. A row lock of FOR NO KEY
UPDATE is what the later UPDATE takes anyway.
"""

from clearance.store.sqlite.statements import ACCOUNT_COLUMNS, RECORD_COLUMNS

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
FLUSH_ON = "SET LOCAL synchronous_commit = on"
FLUSH_OFF = "SET LOCAL synchronous_commit = off"

# A writer that hangs must not hold a hot budget for long, and one that waits must not wait for ever.
LOCK_TIMEOUT_MS, IDLE_TIMEOUT_MS = 8_000, 10_000
LIMITS = f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
# For a session of our own, whose plans are kept: they must still be right when the tables are large. Every statement of
# a batch finds its rows by key, so there is one good plan, whatever the statistics said when it was made.
PLANS = (
    "SET jit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; "
    "SET enable_hashjoin = off; SET enable_mergejoin = off"
)
LIMITS_HERE = (
    f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true), "
    f"set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_MS}', true)"
)

# -- locks ------------------------------------------------------------------------------------------

ACCOUNT = ", ".join(f"a.{column}" for column in ACCOUNT_COLUMNS.split(", "))
_LOCK = "ORDER BY a.tenant, a.scope, a.unit FOR NO KEY UPDATE OF a"
_NAMED = "SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])"
# A reservation's estimate is held on its accounts; whoever asks inside a run needs the run's own account.
_OF_RESERVATIONS = (
    "SELECT r.tenant, s.scope, r.unit FROM clearance.reservations r CROSS JOIN LATERAL "
    "unnest(r.held_on || CASE WHEN r.kind = 'run' THEN ARRAY['run:' || r.id, 'run:' || r.run_id] END) s(scope) "
    "WHERE r.id = ANY(%s::text[])"
)
LOCK_ACCOUNTS = f"SELECT {ACCOUNT} FROM clearance.accounts a WHERE (a.tenant, a.scope, a.unit) IN ({_NAMED}) {_LOCK}"
LOCK_ACCOUNTS_AND_HOLDERS = (
    f"SELECT {ACCOUNT} FROM clearance.accounts a WHERE (a.tenant, a.scope, a.unit) IN "
    f"({_NAMED} UNION {_OF_RESERVATIONS}) {_LOCK}"
)
LOCK_TENANTS_ACCOUNTS = (
    f"SELECT {ACCOUNT} FROM clearance.accounts a WHERE (a.tenant, a.scope, a.unit) IN "
    f"({_NAMED} UNION {_OF_RESERVATIONS} "
    f"UNION SELECT w.tenant, w.scope, w.unit FROM clearance.accounts w WHERE w.tenant = ANY(%s::text[])) {_LOCK}"
)
LOCK_EVERYBODYS_ACCOUNTS = f"SELECT {ACCOUNT} FROM clearance.accounts a {_LOCK}"

RESERVATION_COLUMNS = (
    "id, tenant, kind, status, unit, estimate, charged, actual, scope_path, run_id, created_at_ms, expires_at_ms, "
    "finalized_at_ms, due_at_ms, extension_count, idempotency_key, facts, committed_facts"
)
LOCK_RESERVATIONS = (
    f"SELECT {RESERVATION_COLUMNS} FROM clearance.reservations WHERE id = ANY(%s::text[]) ORDER BY id FOR NO KEY UPDATE"
)
MAKE_GATES = "INSERT INTO clearance.gates SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
LOCK_GATES = "SELECT tenant FROM clearance.gates WHERE tenant = ANY(%s::text[]) ORDER BY tenant FOR NO KEY UPDATE"
NOWAIT = " NOWAIT"

# -- reads ------------------------------------------------------------------------------------------

GET_ACCOUNTS_OF_SCOPE = (
    f"SELECT {ACCOUNT_COLUMNS} FROM clearance.accounts WHERE tenant = %s AND scope = %s ORDER BY unit"
)
GET_ACCOUNTS_OF_TENANT = f"SELECT {ACCOUNT_COLUMNS} FROM clearance.accounts WHERE tenant = %s ORDER BY scope, unit"
LIST_ACCOUNTS = (
    f"SELECT {ACCOUNT_COLUMNS} FROM clearance.accounts WHERE (tenant, scope, unit) > (%s, %s, %s) "
    "AND NOT starts_with(scope, 'run:') ORDER BY tenant, scope, unit LIMIT %s"
)
LIST_ACCOUNTS_OF_TENANT = (
    f"SELECT {ACCOUNT_COLUMNS} FROM clearance.accounts WHERE tenant = %s AND (scope, unit) > (%s, %s) "
    "AND NOT starts_with(scope, 'run:') ORDER BY scope, unit LIMIT %s"
)

GET_RESERVATION = f"SELECT {RESERVATION_COLUMNS} FROM clearance.reservations WHERE id = %s"
GET_RESERVATIONS = f"SELECT {RESERVATION_COLUMNS} FROM clearance.reservations WHERE id = ANY(%s::text[])"
FIND_DUE = (
    "SELECT id FROM clearance.reservations WHERE due_at_ms IS NOT NULL AND due_at_ms <= %s "
    "ORDER BY due_at_ms, id LIMIT %s"
)
FIND_OPEN_IN_RUN = "SELECT id FROM clearance.reservations WHERE due_at_ms IS NOT NULL AND run_id = %s ORDER BY id"
_OPEN = f"SELECT {RESERVATION_COLUMNS} FROM clearance.reservations WHERE due_at_ms IS NOT NULL"
GET_OPEN = f"{_OPEN} ORDER BY due_at_ms, id"
GET_OPEN_OF_TENANT = f"{_OPEN} AND tenant = %s ORDER BY due_at_ms, id"

GET_ANSWERS = "SELECT key, payload, seq FROM clearance.answers WHERE key = ANY(%s::bytea[])"

_STOP = "s.tenant, s.scope, s.state, s.reason, s.actor, s.at_ms"
GET_STOPPED = (
    f"SELECT v.version, {_STOP} FROM clearance.stops_version v LEFT JOIN clearance.stops s ON s.state <> 'RUNNING' "
    "ORDER BY s.tenant, s.scope"
)
GET_STOPS = f"SELECT {_STOP} FROM clearance.stops s ORDER BY s.tenant, s.scope"
GET_STOPS_VERSION = "SELECT version FROM clearance.stops_version"

GET_TENANTS = "SELECT tenant, status, overage_policy, max_extensions FROM clearance.tenants ORDER BY tenant"
GET_TENANTS_NAMED = (
    "SELECT tenant, status, overage_policy, max_extensions FROM clearance.tenants WHERE tenant = ANY(%s::text[])"
)

GET_TENANTS_AND_OWNERS = (
    f"{GET_TENANTS_NAMED} UNION SELECT t.tenant, t.status, t.overage_policy, t.max_extensions "
    "FROM clearance.reservations r JOIN clearance.tenants t USING (tenant) WHERE r.id = ANY(%s::text[])"
)

GET_RECORD = f"SELECT {RECORD_COLUMNS} FROM clearance.records WHERE kind = %s AND id = %s"
LOCK_RECORD = f"{GET_RECORD} FOR NO KEY UPDATE"
GET_RECORDS = f"SELECT {RECORD_COLUMNS} FROM clearance.records WHERE kind = %s AND id > %s ORDER BY id LIMIT %s"
GET_RECORDS_OF_TENANT = (
    f"SELECT {RECORD_COLUMNS} FROM clearance.records WHERE kind = %s AND tenant = %s AND id > %s ORDER BY id LIMIT %s"
)
CLAIM_DUE_RECORDS = (
    f"SELECT {RECORD_COLUMNS} FROM clearance.records WHERE kind = %s AND due_at_ms IS NOT NULL AND due_at_ms <= %s "
    "ORDER BY due_at_ms LIMIT %s FOR NO KEY UPDATE SKIP LOCKED"
)

EVENT_COLUMNS = "seq, at_ms, tenant, type, scope, reservation_id, data"
GET_EVENT = f"SELECT {EVENT_COLUMNS} FROM clearance.events WHERE seq = %s"

# -- writes -----------------------------------------------------------------------------------------

INSERT_ACCOUNTS = (
    f"INSERT INTO clearance.accounts ({ACCOUNT_COLUMNS}) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], "
    "%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[], %s::bigint[], %s::text[], %s::text[], "
    "%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[])"
)
AMEND_ACCOUNTS = (
    "UPDATE clearance.accounts a SET allocated = n.allocated, reserved = n.reserved, spent = n.spent, debt = n.debt, "
    "over_limit = n.over_limit, overdraft_limit = n.overdraft_limit, status = n.status, "
    "overage_policy = n.overage_policy, period = n.period, period_start_ms = n.period_start_ms, "
    "period_end_ms = n.period_end_ms, caps = n.caps, created_at_ms = n.created_at_ms "
    "FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], "
    "%s::boolean[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], "
    f"%s::bigint[]) n({ACCOUNT_COLUMNS}) WHERE a.tenant = n.tenant AND a.scope = n.scope AND a.unit = n.unit"
)
MOVE_ACCOUNTS = (
    "UPDATE clearance.accounts a SET allocated = n.allocated, reserved = n.reserved, spent = n.spent, debt = n.debt, "
    "over_limit = n.over_limit FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], "
    "%s::bigint[], %s::bigint[], %s::boolean[]) n(tenant, scope, unit, allocated, reserved, spent, debt, over_limit) "
    "WHERE a.tenant = n.tenant AND a.scope = n.scope AND a.unit = n.unit"
)
DROP_ACCOUNTS = f"DELETE FROM clearance.accounts WHERE (tenant, scope, unit) IN ({_NAMED})"

# held_on comes as lines: unnest takes no array whose members are lists of several lengths.
INSERT_RESERVATIONS = (
    f"INSERT INTO clearance.reservations ({RESERVATION_COLUMNS}, held_on) "
    "SELECT id, tenant, kind, status, unit, estimate, charged, actual, scope_path, run_id, created_at_ms, "
    "expires_at_ms, finalized_at_ms, due_at_ms, extension_count, idempotency_key, facts, committed_facts, "
    "string_to_array(held_on, E'\\n') FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], "
    "%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], "
    f"%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[]) n({RESERVATION_COLUMNS}, held_on)"
)
UPDATE_RESERVATIONS = (
    "UPDATE clearance.reservations r SET status = n.status, charged = n.charged, actual = n.actual, "
    "expires_at_ms = n.expires_at_ms, finalized_at_ms = n.finalized_at_ms, due_at_ms = n.due_at_ms, "
    "extension_count = n.extension_count, committed_facts = n.committed_facts "
    "FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], "
    "%s::text[], %s::text[]) n(status, charged, actual, expires_at_ms, finalized_at_ms, due_at_ms, "
    "extension_count, committed_facts, id) WHERE r.id = n.id"
)
INSERT_ANSWERS = (
    "INSERT INTO clearance.answers (key, tenant, payload, seq) "
    "SELECT * FROM unnest(%s::bytea[], %s::text[], %s::bytea[], %s::bigint[])"
)
INSERT_EVENTS = (
    f"INSERT INTO clearance.events ({EVENT_COLUMNS}) SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], "
    "%s::text[], %s::text[], %s::text[], %s::text[])"
)
PUT_STOPS = (
    "INSERT INTO clearance.stops (tenant, scope, state, reason, actor, at_ms) SELECT * FROM unnest(%s::text[], "
    "%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[]) ON CONFLICT (tenant, scope) DO UPDATE SET "
    "state = excluded.state, reason = excluded.reason, actor = excluded.actor, at_ms = excluded.at_ms"
)
RAISE_STOPS_VERSION = "UPDATE clearance.stops_version SET version = version + 1"
CHANNEL = "clearance_stops"
NOTIFY = f"NOTIFY {CHANNEL}"
PUT_TENANTS = (
    "INSERT INTO clearance.tenants (tenant, status, overage_policy, max_extensions) SELECT * FROM unnest(%s::text[], "
    "%s::text[], %s::text[], %s::bigint[]) ON CONFLICT (tenant) DO UPDATE SET status = excluded.status, "
    "overage_policy = excluded.overage_policy, max_extensions = excluded.max_extensions"
)
INSERT_RECORDS = (
    f"INSERT INTO clearance.records ({RECORD_COLUMNS}) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], "
    "%s::text[], %s::bigint[])"
)
PUT_RECORDS = (
    f"{INSERT_RECORDS} ON CONFLICT (kind, id) DO UPDATE SET tenant = excluded.tenant, "
    "body = excluded.body, due_at_ms = excluded.due_at_ms"
)
DROP_RECORDS = "DELETE FROM clearance.records WHERE (kind, id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
