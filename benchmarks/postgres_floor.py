"""The floor on PostgreSQL: the same rows by hand, one SQL function a call, or one call for a whole batch.

Written as one would without an evaluator: it checks nothing but the balance, knows no periods, policies, stops or runs,
and takes its batches from a queue that is always full. Locks in one order, sums per account, arrays in one statement.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from time import perf_counter, perf_counter_ns

import psycopg

SCOPES = 4
SCHEMA = """
CREATE SCHEMA floor;
CREATE TABLE floor.accounts (tenant TEXT, scope TEXT, allocated BIGINT, reserved BIGINT, spent BIGINT,
    PRIMARY KEY (tenant, scope)) WITH (fillfactor = 50);
CREATE TABLE floor.reservations (id TEXT PRIMARY KEY, tenant TEXT, estimate BIGINT, charged BIGINT, status TEXT,
    due_at_ms BIGINT, key TEXT, facts TEXT);
CREATE INDEX ON floor.reservations (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE TABLE floor.events (seq BIGSERIAL PRIMARY KEY, tenant TEXT, type TEXT, reservation_id TEXT, data TEXT);
CREATE TABLE floor.answers (key TEXT PRIMARY KEY, seq BIGINT);
CREATE FUNCTION floor.reserve(t TEXT, ids TEXT[], keys TEXT[], amount BIGINT, facts TEXT) RETURNS BIGINT AS $$
DECLARE n BIGINT := cardinality(ids); least_left BIGINT;
BEGIN
    PERFORM 1 FROM floor.accounts WHERE tenant = t ORDER BY scope FOR NO KEY UPDATE;
    SELECT min(allocated - reserved - spent) INTO least_left FROM floor.accounts WHERE tenant = t;
    IF least_left < n * amount THEN RETURN 0; END IF;
    INSERT INTO floor.reservations SELECT u, t, amount, NULL, 'ACTIVE', 1, k, facts FROM unnest(ids, keys) x(u, k);
    INSERT INTO floor.events (tenant, type, reservation_id, data)
        SELECT t, 'reservation.created', u, facts FROM unnest(ids) u;
    INSERT INTO floor.answers SELECT k, 1 FROM unnest(keys) k;
    UPDATE floor.accounts SET reserved = reserved + n * amount WHERE tenant = t;
    RETURN n;
END $$ LANGUAGE plpgsql;
CREATE FUNCTION floor.commit(t TEXT, ids TEXT[], keys TEXT[], amount BIGINT, actual BIGINT, facts TEXT) RETURNS BIGINT
AS $$
DECLARE n BIGINT := cardinality(ids);
BEGIN
    PERFORM 1 FROM floor.accounts WHERE tenant = t ORDER BY scope FOR NO KEY UPDATE;
    UPDATE floor.reservations SET status = 'COMMITTED', charged = actual, due_at_ms = NULL WHERE id = ANY(ids);
    INSERT INTO floor.events (tenant, type, reservation_id, data)
        SELECT t, 'reservation.committed', u, facts FROM unnest(ids) u;
    INSERT INTO floor.answers SELECT k, 1 FROM unnest(keys) k;
    UPDATE floor.accounts SET reserved = reserved - n * amount, spent = spent + n * actual WHERE tenant = t;
    RETURN n;
END $$ LANGUAGE plpgsql;
"""
FACTS = "x" * 400
RESERVE = "SELECT floor.reserve(%s, %s, %s, 20, %s)"
COMMIT = "SELECT floor.commit(%s, %s, %s, 20, 13, %s)"


class PostgresFloor:
    def __init__(self, url: str, tenants: int) -> None:
        self._url = url
        self._tenants = [f"t{n}" for n in range(tenants)]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA.encode())
            connection.execute(
                "INSERT INTO floor.accounts SELECT 't' || n, 's' || s, 1000000000000000, 0, 0 "
                "FROM generate_series(0, %s - 1) n, generate_series(1, %s) s",
                (tenants, SCOPES),
            )

    def measure(self, callers: int, batch: int, seconds: float) -> tuple[list[int], float]:
        """Each caller a connection and one call after the other, `batch` lifecycles a call. Times of calls in ns."""
        times: list[list[int]] = [[] for _ in range(callers)]
        gate = threading.Barrier(callers + 1)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    gate.wait(60)
                    self._call(connection, self._tenants[number % len(self._tenants)], batch, seconds, times[number])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        gate.wait(60)
        began = perf_counter()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [time for mine in times for time in mine], perf_counter() - began

    @staticmethod
    def _call(
        connection: psycopg.Connection[tuple[object, ...]], tenant: str, batch: int, seconds: float, times: list[int]
    ) -> None:
        end = perf_counter() + seconds
        while perf_counter() < end:
            ids, keys = _names(2 * batch), _names(2 * batch)
            began = perf_counter_ns()
            connection.execute(RESERVE, (tenant, ids[:batch], keys[:batch], FACTS), prepare=True)
            connection.execute(COMMIT, (tenant, ids[:batch], keys[batch:], FACTS), prepare=True)
            times.append(perf_counter_ns() - began)


def _names(count: int) -> Sequence[str]:
    text = os.urandom(16 * count).hex()
    return [text[at : at + 32] for at in range(0, len(text), 32)]
