"""Values that must not be shown."""

from __future__ import annotations


class Interpolated(str):
    """Text with `${NAME}` filled in. Where it is shown, in a message or a repr, its source stands in its place."""

    source: str

    def __new__(cls, value: str, source: str) -> Interpolated:
        made = super().__new__(cls, value)
        made.source = source
        return made

    def __repr__(self) -> str:
        return repr(self.source)


class Secret:
    """A value that neither `str` nor `repr` tells; `reveal` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = str.__str__(value)

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
