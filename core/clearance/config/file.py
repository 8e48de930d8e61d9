"""The whole of `clearance.yaml`."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clearance.authority.budgets import BudgetSpec
from clearance.config.budgets import read_budgets
from clearance.config.document import MAX_BYTES, read
from clearance.config.prices import read_prices
from clearance.config.problems import ConfigInvalid, Problem, Report
from clearance.config.server import ServerOptions, read_durability, read_server, read_url
from clearance.errors import InvalidRequest
from clearance.model.amount import Amount

if TYPE_CHECKING:
    from clearance.pricing import PriceBook

SECTIONS = ("ledger", "durability", "server", "prices", "budgets")


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that is valid.

    Attributes:
        ledger: the URL or path as written, or None.
        prices: prices by model as written; unknown: the policy for other models.
        server: what `clearance serve` is told, as far as the file says it.
    """

    file: str
    ledger: str | None = None
    durability: str = "settlements"
    server: ServerOptions = field(default_factory=ServerOptions)
    prices: dict[str, Any] = field(default_factory=dict)
    unknown: str | Amount = "deny"
    budgets: tuple[BudgetSpec, ...] = ()

    @property
    def ledger_url(self) -> str | None:
        """The ledger with a relative path taken from the folder of this file, not from where the program runs."""
        return None if self.ledger is None else self._url(self.ledger)

    @property
    def store_url(self) -> str | None:
        """The ledger of the server: `server.store`, else `ledger`."""
        return self.ledger_url if self.server.store is None else self._url(self.server.store)

    @property
    def admin_key_file(self) -> pathlib.Path | None:
        named = self.server.admin_key_file
        return None if named is None else self._beside(named)

    def _url(self, written: str) -> str:
        scheme, sep, rest = written.partition("://")
        if not sep:
            return str(self._beside(written))
        if scheme == "sqlite" and rest.startswith("/") and not rest.startswith("//") and len(rest) > 1:
            return f"sqlite:///{self._beside(rest[1:])}"
        return written

    def _beside(self, path: str) -> pathlib.Path:
        return pathlib.Path(self.file).absolute().parent / pathlib.Path(path).expanduser()

    def price_book(self) -> PriceBook:
        from clearance.pricing import PriceBook

        return PriceBook(self.prices, self.unknown)  # type: ignore[arg-type]


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
        read_url(report, given.get("ledger"), ("ledger",)),
        read_durability(report, given.get("durability"), ("durability",)) or "settlements",
        read_server(report, given.get("server"), ("server",)),
        prices,
        unknown,
        read_budgets(report, given.get("budgets"), ("budgets",)),
    )


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
