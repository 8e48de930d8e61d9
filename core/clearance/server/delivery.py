"""Sends events to webhooks, at least once. The event log is the outbox: a place in it and the deliveries that follow
from it move in one transaction, so nothing is lost to a kill -9; what was sent but not noted is sent again.

Of several servers on one ledger one delivers at a time: it holds a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from functools import partial

import httpx

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError
from clearance.model.results import Event
from clearance.server import deliveries
from clearance.server.deliveries import DELIVERY, PENDING, SUCCESS
from clearance.server.eventtypes import SYSTEM, kind_of
from clearance.server.settings import Settings
from clearance.server.stream import LogWatch
from clearance.server.subscriptions import ACTIVE, DISABLED, KIND, selects
from clearance.server.targets import Blocked, resolve
from clearance.server.wire import Wire
from clearance.store.interface import Changes, EventQuery, NewEvent, Record, Transaction

log = logging.getLogger("clearance.server.webhooks")

OUTBOX, PLACE = "outbox", "webhooks"
BATCH = 200
LEASE_MS = 5_000
IDLE_SECONDS = 5.0
MAX_SENDING = 32
KEEP_MS = 14 * 86_400_000
TIDY_SECONDS = 3600.0
AGENT = "clearance"


class Dispatcher:
    """One task that finds work, and for every tenant a queue that keeps first attempts in order."""

    def __init__(self, authority: EmbeddedAuthority, settings: Settings, watch: LogWatch) -> None:
        self._authority = authority
        self._settings = settings
        self._watch = watch
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._task: asyncio.Task[None] | None = None
        self._queues: dict[str, deque[Record]] = {}
        self._sending: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_SENDING)
        self._next_tidy = 0.0

    def start(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=self._settings.webhook_timeout_seconds, follow_redirects=False, trust_env=False
        )
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """What is on its way may finish within the time-out; the rest stays in the outbox."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()
        with contextlib.suppress(ClearanceError):
            await self._authority.akeep(self._hand_over)

    def _hand_over(self, tx: Transaction, now_ms: int) -> None:
        """Let the next server begin at once."""
        kept = tx.record(OUTBOX, PLACE)
        if kept is not None and kept.body["owner"] == self._name:
            tx.write(Changes(records=[kept._replace(body={**kept.body, "until_ms": 0})]), now_ms)

    async def _work(self) -> None:
        while True:
            pause = IDLE_SECONDS
            seen = 0
            try:
                seen = self._watch.last_seq()
                if self._authority.records(KIND, limit=1):
                    pause = await self._round()
            except ClearanceError as error:
                log.warning("webhooks wait for the ledger: %s", error)
                pause = 1.0
            except Exception:
                log.exception("webhook dispatch failed")
            if pause and not await self._watch.grown(seen, pause) and self._watch.closing.is_set():
                await asyncio.sleep(0.2)

    async def _round(self) -> float:
        """Queue what is new, start what is due; how long until the next thing is due."""
        subscriptions = self._subscriptions()
        active = [record for record in subscriptions.values() if record.body["status"] == ACTIVE]
        place, events = self._new_events(active)
        due = await self._authority.akeep(lambda tx, now: self._claim(tx, now, place, events, active))
        if due is None:
            return 1.0
        for record in due:
            self._enqueue(record)
        await self._tidy()
        if len(events) == BATCH or len(due) == BATCH:
            return 0.0 if len(events) == BATCH else 0.2
        return self._settings.poll_seconds * 2 if self._sending or due else 1.0

    def _subscriptions(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        after = ""
        while rows := self._authority.records(KIND, after=after):
            found |= {row.id: row for row in rows}
            after = rows[-1].id
        return found

    def _new_events(self, active: list[Record]) -> tuple[int, list[Event]]:
        kept = self._authority.record(OUTBOX, PLACE)
        start = min((record.body["after_seq"] for record in active), default=0)
        place = max(kept.body["seq"] if kept else 0, start)
        if not active:
            return place, []
        return place, self._authority.events(EventQuery(after=place), limit=BATCH)

    def _claim(
        self, tx: Transaction, now_ms: int, place: int, events: list[Event], active: list[Record]
    ) -> list[Record] | None:
        """None: another server delivers."""
        kept = tx.record(OUTBOX, PLACE)
        body: Wire = kept.body if kept else {"seq": 0, "owner": "", "until_ms": 0}
        if body["owner"] != self._name and body["until_ms"] > now_ms:
            return None
        made = [
            deliveries.new_delivery(record, event, now_ms)
            for event in events
            for record in active
            if event.seq > record.body["after_seq"] and selects(record, event.tenant, kind_of(event), event.scope)
        ]
        fresh = [record for record in made if body["seq"] < record.body["seq"]]
        seq = max(body["seq"], place, events[-1].seq if events else 0)
        if fresh or seq != body["seq"] or body["owner"] != self._name or body["until_ms"] - now_ms < LEASE_MS // 2:
            lease = {"seq": seq, "owner": self._name, "until_ms": now_ms + LEASE_MS}
            tx.write(Changes(records=[Record(OUTBOX, PLACE, "", lease), *fresh]), now_ms)
        due = [
            record
            for record in tx.due_records(DELIVERY, now_ms, BATCH + len(self._sending))
            if record.id not in self._sending
        ]
        return sorted(due[:BATCH], key=lambda record: record.body["seq"])

    def _enqueue(self, record: Record) -> None:
        """First attempts of a tenant go one after another; retries on their own, for they are late anyway."""
        self._sending.add(record.id)
        if record.body["status"] != PENDING:
            self._spawn([record])
        elif record.tenant in self._queues:
            self._queues[record.tenant].append(record)
        else:
            self._queues[record.tenant] = deque([record])
            self._spawn_queue(record.tenant)

    def _spawn(self, records: list[Record]) -> None:
        self._keep_task(asyncio.create_task(self._deliver_all(records)))

    def _spawn_queue(self, tenant: str) -> None:
        self._keep_task(asyncio.create_task(self._drain(tenant)))

    def _keep_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, tenant: str) -> None:
        queue = self._queues[tenant]
        try:
            while queue:
                await self._deliver_all([queue.popleft()])
        finally:
            del self._queues[tenant]

    async def _deliver_all(self, records: list[Record]) -> None:
        for record in records:
            try:
                async with self._slots:
                    await self._deliver(record)
            except ClearanceError as error:
                log.warning("a webhook delivery was not noted and will be repeated: %s", error)
            except Exception:
                log.exception("a webhook delivery failed")
            finally:
                self._sending.discard(record.id)

    async def _deliver(self, record: Record) -> None:
        subscription = self._authority.record(KIND, record.body["subscription_id"])
        now_ms = self._authority.now_ms()
        problem = _hopeless(record, subscription, now_ms)
        found = self._authority.events(EventQuery(after=record.body["seq"] - 1), limit=1) if not problem else []
        if problem or not found or subscription is None:
            await self._note(deliveries.given_up(record, problem or "the event is no longer kept", now_ms))
            return
        raw = deliveries.content(found[0])
        began = time.monotonic()
        status, error = await self._post(subscription, record, raw)
        took_ms = int((time.monotonic() - began) * 1000)
        now_ms = self._authority.now_ms()
        if error is None and status is not None:
            await self._note(deliveries.arrived(record, status, took_ms, now_ms))
        else:
            await self._note(deliveries.failed(record, subscription, error or "?", status, took_ms, now_ms))

    async def _post(self, subscription: Record, record: Record, raw: bytes) -> tuple[int | None, str | None]:
        """The status, and what was wrong. Redirects are not followed: they could lead inside."""
        try:
            target = await resolve(subscription.body["url"], self._settings)
            headers = deliveries.request_headers(record, subscription, raw, AGENT) | {"Host": target.netloc}
            async with asyncio.timeout(self._settings.webhook_timeout_seconds):
                async with self._client.stream(
                    "POST", target.url, content=raw, headers=headers, extensions={"sni_hostname": target.host}
                ) as response:
                    status = response.status_code
        except Blocked as blocked:
            return None, str(blocked)
        except TimeoutError:
            return None, "no answer in time"
        except httpx.HTTPError as error:
            return None, type(error).__name__
        return status, None if 200 <= status < 300 else f"HTTP {status}"

    async def _note(self, after: Record) -> None:
        """The delivery and its subscription's count of failures, in one transaction."""

        def change(tx: Transaction, now_ms: int) -> None:
            records, events = [after], []
            subscription = tx.record(KIND, after.body["subscription_id"])
            if subscription is not None and after.body["attempts"]:
                counted, off = _counted(subscription, after.body["status"] == SUCCESS, now_ms)
                records += [counted] if counted != subscription else []
                events += [off] if off else []
            if after.body["status"] == "FAILED":
                facts = {"subscription_id": after.body["subscription_id"], "delivery_id": after.id}
                tenant = "" if after.tenant == SYSTEM else after.tenant
                facts["error_message"] = after.body.get("error_message", "")
                events.append(NewEvent("system.webhook_delivery_failed", tenant, None, None, facts))
            tx.write(Changes(records=records, events=events), now_ms)

        await self._authority.akeep(change)

    async def _tidy(self) -> None:
        """Forget deliveries that ended two weeks ago; once an hour."""
        if time.monotonic() < self._next_tidy:
            return
        self._next_tidy = time.monotonic() + TIDY_SECONDS
        before = self._authority.now_ms() - KEEP_MS
        after = ""
        while rows := self._authority.records(DELIVERY, after=after):
            after = rows[-1].id
            old = [(DELIVERY, row.id) for row in rows if row.body.get("completed_at_ms", before) < before]
            if old:
                await self._authority.akeep(partial(_drop, old))
            await asyncio.sleep(0)


def _drop(old: list[tuple[str, str]], tx: Transaction, now_ms: int) -> None:
    tx.write(Changes(dropped_records=old), now_ms)


def _hopeless(record: Record, subscription: Record | None, now_ms: int) -> str | None:
    if subscription is None:
        return "the webhook was deleted"
    if subscription.body["status"] != ACTIVE:
        return f"the webhook is {subscription.body['status'].lower()}"
    if now_ms - record.body["queued_at_ms"] > deliveries.MAX_AGE_MS:
        return "older than 24 hours"
    return None


def _counted(subscription: Record, arrived: bool, now_ms: int) -> tuple[Record, NewEvent | None]:
    """The subscription with its count of failures in a row; disabled at its limit."""
    body = dict(subscription.body)
    body["consecutive_failures"] = 0 if arrived else body["consecutive_failures"] + 1
    if body == subscription.body:
        return subscription, None
    event = None
    if body["consecutive_failures"] >= body["disable_after_failures"] and body["status"] == ACTIVE:
        body["status"] = DISABLED
        tenant = "" if subscription.tenant == SYSTEM else subscription.tenant
        facts = {"subscription_id": subscription.id, "consecutive_failures": body["consecutive_failures"]}
        event = NewEvent("webhook.disabled", tenant, None, None, facts)
    return subscription._replace(body=body), event
