"""Tells every open store of a fork, before and after it."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What has files open that a child must not take over."""

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork(self) -> None: ...


_stores: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_of_forks(store: Forked) -> None:
    """From now on, for as long as it lives; nothing keeps it alive here."""
    _stores.add(store)


def never_collect(connection: object) -> None:
    """Closing an inherited connection would disturb the parent's write-ahead log."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _before_fork() -> None:
    for store in list(_stores):
        store.before_fork()


def _after_fork_in_parent() -> None:
    for store in list(_stores):
        store.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
