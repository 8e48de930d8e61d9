"""The whole of `clearance.yaml`."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import DURABILITY
from clearance.config.budgets import read_budgets
from clearance.config.document import MAX_BYTES, read
from clearance.config.prices import read_prices
from clearance.config.problems import ConfigInvalid, Problem, Report, shown
from clearance.errors import InvalidRequest
from clearance.model.amount import Amount

if TYPE_CHECKING:
    from clearance.pricing import PriceBook

SECTIONS = ("ledger", "durability", "prices", "budgets")


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that is valid.

    Attributes:
        ledger: the URL or path as written, or None.
        prices: prices by model as written; unknown: the policy for other models.
    """

    file: str
    ledger: str | None = None
    durability: str = "settlements"
    prices: dict[str, Any] = field(default_factory=dict)
    unknown: str | Amount = "deny"
    budgets: tuple[BudgetSpec, ...] = ()

    @property
    def ledger_url(self) -> str | None:
        """The ledger with a relative path taken from the folder of this file, not from where the program runs."""
        if self.ledger is None:
            return None
        scheme, sep, rest = self.ledger.partition("://")
        if not sep:
            return str(self._beside(self.ledger))
        if scheme == "sqlite" and rest.startswith("/") and not rest.startswith("//") and len(rest) > 1:
            return f"sqlite:///{self._beside(rest[1:])}"
        return self.ledger

    def _beside(self, path: str) -> pathlib.Path:
        return pathlib.Path(self.file).absolute().parent / pathlib.Path(path).expanduser()

    def price_book(self) -> PriceBook:
        from clearance.pricing import PriceBook

        return PriceBook(self.prices, self.unknown)  # type: ignore[arg-type]


HERE = "clearance.yaml"


def here(sections: Collection[str] = SECTIONS) -> Config | None:
    """What `clearance.yaml` in the present folder says, None where there is none: for programs as for commands."""
    return load(HERE, sections) if pathlib.Path(HERE).is_file() else None


def load(path: str | pathlib.Path, sections: Collection[str] = SECTIONS) -> Config:
    """Read and check a file. Raises ConfigInvalid with every problem at once.

    With `sections`, problems in other parts are left for whoever needs those: a bad budget does not keep an operator
    from finding the ledger.
    """
    return parse(_text(pathlib.Path(path)), str(path), sections)


def parse(text: str, file: str = "clearance.yaml", sections: Collection[str] = SECTIONS) -> Config:
    document, report = read(text, file)
    config = Config(file)
    if not any(not path for path, _ in report.found):
        config = _config(report, {} if document.value is None else document.value, file)
    problems = [problem for path, problem in report.found if _belongs(path, sections)]
    if problems:
        raise ConfigInvalid(sorted(problems, key=lambda problem: problem.line or 0))
    return config


def _belongs(path: tuple[str | int, ...], sections: Collection[str]) -> bool:
    return not path or path[0] in sections or path[0] not in SECTIONS


def _config(report: Report, value: Any, file: str) -> Config:
    given = report.mapping(value, (), SECTIONS) or {}
    prices, unknown = read_prices(report, given.get("prices"), ("prices",))
    return Config(
        file,
        _ledger(report, given.get("ledger")),
        _durability(report, given.get("durability")),
        prices,
        unknown,
        read_budgets(report, given.get("budgets"), ("budgets",)),
    )


def _ledger(report: Report, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        report.refuse(("ledger",), f"{shown(value)} is not a URL", "sqlite:///path, memory:// or a file's path")
        return None
    return value.strip()


def _durability(report: Report, value: Any) -> str:
    if value is None:
        return "settlements"
    if value not in DURABILITY:
        report.refuse(("durability",), f"{shown(value)} is unknown", ", ".join(DURABILITY))
        return "settlements"
    return str(value)


def _text(path: pathlib.Path) -> str:
    try:
        if path.is_dir():
            raise InvalidRequest("config", f"{path} is a folder", "a YAML file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidRequest("config", f"there is no file {path}", "a YAML file such as clearance.yaml") from None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest("config", f"cannot read {str(path)!r}: {what}", "a file that can be read") from None
    if len(data) > MAX_BYTES:
        raise InvalidRequest("config", f"{path} has {len(data):,} bytes", f"at most {MAX_BYTES:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid([Problem(str(path), line, "", "is not UTF-8 text", "UTF-8")]) from None
