"""The SQL of the SQLite engine, each statement with a name."""

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

ACCOUNT_COLUMNS = (
    "tenant, scope, unit, allocated, reserved, spent, debt, over_limit, overdraft_limit, status, overage_policy, "
    "period, period_start_ms, period_end_ms, caps, created_at_ms"
)
GET_ACCOUNTS_OF_SCOPE = f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE tenant = ? AND scope = ? ORDER BY unit"
GET_ACCOUNTS_OF_TENANT = f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE tenant = ? ORDER BY scope, unit"
LIST_ACCOUNTS = (
    f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE (tenant, scope, unit) > (?, ?, ?) AND scope NOT LIKE 'run:%' "
    "ORDER BY tenant, scope, unit LIMIT ?"
)
LIST_ACCOUNTS_OF_TENANT = (
    f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE tenant = ? AND (scope, unit) > (?, ?) AND scope NOT LIKE 'run:%' "
    "ORDER BY scope, unit LIMIT ?"
)
PUT_ACCOUNT = (
    f"INSERT OR REPLACE INTO accounts ({ACCOUNT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
MOVE_ACCOUNT = (
    "UPDATE accounts SET allocated = ?, reserved = ?, spent = ?, debt = ?, over_limit = ? "
    "WHERE tenant = ? AND scope = ? AND unit = ?"
)
DROP_ACCOUNT = "DELETE FROM accounts WHERE tenant = ? AND scope = ? AND unit = ?"

RESERVATION_COLUMNS = (
    "id, tenant, kind, status, unit, estimate, charged, actual, scope_path, run_id, created_at_ms, expires_at_ms, "
    "finalized_at_ms, due_at_ms, extension_count, idempotency_key, facts, committed_facts"
)
GET_RESERVATION = f"SELECT {RESERVATION_COLUMNS} FROM reservations WHERE id = ?"
GET_DUE = (
    f"SELECT {RESERVATION_COLUMNS} FROM reservations WHERE due_at_ms IS NOT NULL AND due_at_ms <= ? "
    "ORDER BY due_at_ms, id LIMIT ?"
)
# In an order, so that every engine ends the same things in the same order and names them so.
GET_OPEN = f"SELECT {RESERVATION_COLUMNS} FROM reservations WHERE due_at_ms IS NOT NULL ORDER BY due_at_ms, id"
GET_OPEN_IN_RUN = (
    f"SELECT {RESERVATION_COLUMNS} FROM reservations WHERE due_at_ms IS NOT NULL AND run_id = ? ORDER BY id"
)
INSERT_RESERVATION = (
    f"INSERT INTO reservations ({RESERVATION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE_RESERVATION = (
    "UPDATE reservations SET status = ?, charged = ?, actual = ?, expires_at_ms = ?, finalized_at_ms = ?, "
    "due_at_ms = ?, extension_count = ?, committed_facts = ? WHERE id = ?"
)

GET_ANSWER_OR_NEXT = "SELECT key, payload, seq FROM answers WHERE key >= ? ORDER BY key LIMIT 1"
GET_ANSWERS = "SELECT key, payload, seq FROM answers WHERE key IN ({})"
INSERT_ANSWER = "INSERT INTO answers (key, payload, seq) VALUES (?, ?, ?)"

GET_STOPPED = (
    "SELECT tenant, scope, state, reason, actor, at_ms FROM stops WHERE state <> 'RUNNING' ORDER BY tenant, scope"
)
GET_STOPS = "SELECT tenant, scope, state, reason, actor, at_ms FROM stops ORDER BY tenant, scope"
PUT_STOP = "INSERT OR REPLACE INTO stops (tenant, scope, state, reason, actor, at_ms) VALUES (?, ?, ?, ?, ?, ?)"

GET_TENANT = "SELECT tenant, status, overage_policy, max_extensions FROM tenants WHERE tenant = ?"
GET_TENANTS = "SELECT tenant, status, overage_policy, max_extensions FROM tenants ORDER BY tenant"
PUT_TENANT = "INSERT OR REPLACE INTO tenants (tenant, status, overage_policy, max_extensions) VALUES (?, ?, ?, ?)"

RECORD_COLUMNS = "kind, id, tenant, body, due_at_ms"
GET_RECORD = f"SELECT {RECORD_COLUMNS} FROM records WHERE kind = ? AND id = ?"
GET_RECORDS = f"SELECT {RECORD_COLUMNS} FROM records WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
GET_RECORDS_OF_TENANT = (
    f"SELECT {RECORD_COLUMNS} FROM records WHERE kind = ? AND tenant = ? AND id > ? ORDER BY id LIMIT ?"
)
GET_DUE_RECORDS = (
    f"SELECT {RECORD_COLUMNS} FROM records WHERE kind = ? AND due_at_ms IS NOT NULL AND due_at_ms <= ? "
    "ORDER BY due_at_ms LIMIT ?"
)
PUT_RECORD = f"INSERT OR REPLACE INTO records ({RECORD_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
DROP_RECORD = "DELETE FROM records WHERE kind = ? AND id = ?"

LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM events"
EVENT_COLUMNS = "seq, at_ms, tenant, type, scope, reservation_id, data"
GET_EVENT = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq = ?"
INSERT_EVENT = f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
