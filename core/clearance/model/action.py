"""What is about to happen."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import Field, field_validator

from clearance.model.base import Model

Tag = Annotated[str, Field(max_length=64)]


class Action(Model):
    """A kind from the registry or your own (`llm.completion`, `tool.call`, `message.email.send`) and a name."""

    kind: Annotated[str, Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    tags: Annotated[tuple[Tag, ...], Field(max_length=10)] = ()

    @field_validator("kind", "name")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank")
        return value

    @property
    def wire(self) -> dict[str, object]:
        base: dict[str, object] = {"kind": self.kind, "name": self.name}
        return {**base, "tags": list(self.tags)} if self.tags else base


def action(text: str) -> Action:
    """`action("tool.call:search")`: the kind, a colon, the name; without a colon the name is the kind."""
    kind, _, name = text.partition(":")
    return named(kind, name or kind)


def named(kind: str, name: str, tags: tuple[str, ...] = ()) -> Action:
    """The action of that kind and name; the same object each time, for agents do the same over and over."""
    if type(kind) is str and type(name) is str:
        return _remembered(kind, name, tags)
    return Action(kind=kind, name=name, tags=tags)


@lru_cache(maxsize=8192)
def _remembered(kind: str, name: str, tags: tuple[str, ...]) -> Action:
    return Action(kind=kind, name=name, tags=tags)
