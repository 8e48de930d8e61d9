"""A URL that cannot be read is explained without a word of it: the password may be anywhere in it."""

from __future__ import annotations

import traceback

import pytest

from clearance.cli import main
from clearance.errors import InvalidRequest
from clearance.store.postgres import PostgresStore
from clearance.store.postgres.connection import conninfo_of, place_of

SECRETS = ("hunter", "secret")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://postgres:hunter2secret@[::1/a", "the host"),
        ("postgresql://u:hunter2%zz@h/a", "the password"),
        ("postgresql://u:hunter2secret%@h/a", "the password"),
        ("postgresql://u:hunter2 secret@h/a%zz", "the password"),
        ("postgresql://u:hunter2%00secret@h/a", "the password"),
        ("postgresql://u%:hunter2secret@h/a", "the user"),
        ("postgresql://u:hunter2secret@h/a%zz", "the database's name"),
        ("postgresql://u:hunter2secret@h/a?pasword=hunter2", "what follows the ?"),
        ("postgresql://u@h/a?password=hunter2%zz", "what follows the ?"),
        ("postgresql://h/a?password=hunter&secret=2", "what follows the ?"),
        ("postgresql://u:hunter2/secret@h/a", "an @ or a /"),
        ("postgresql://u:12/secret@h/a", "an @ or a /"),
        ("postgresql://u:hunter2@secret@h/a", "an @ or a /"),
        ("postgresql://u:hun?ter@secret2@h/a", "an @ or a /"),
        ("postgresql://u:hunter2secret/a", "the port"),
        ("postgresql://u:hunter2secret@h:99999/a", "the port"),
        ("postgresql://u:hunter2secret@h:0/a", "the port"),
        ("host=h password=hunter2 secret", "the connection string"),
        ("postgresql://u:hunter2\udcffsecret@h/a", "cannot be read"),
    ],
)
def test_no_part_of_a_url_that_cannot_be_read_is_shown(
    url: str, part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        PostgresStore(url)
    assert part in str(caught.value)
    assert "%2F for /" in str(caught.value)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.details)
    if url.startswith("postgresql"):
        monkeypatch.setenv("CLEARANCE_DEBUG", "1")
        assert main(["--ledger", url, "db", "status"]) == 1
        told += "".join(capsys.readouterr())
    assert not [secret for secret in SECRETS if secret in told]


def test_a_url_that_can_be_read_keeps_every_part_of_it() -> None:
    url = "postgresql://u%40x:a%2Fb%40c%25%20d@h1:5432,[::1]:6432/a%40b?application_name=me@work"
    assert "password='a/b@c% d'" in conninfo_of(url)
    assert place_of(url) == "postgresql://h1,::1:5432,6432/a@b"
    assert "password=a@b@c" in conninfo_of("host=h password=a@b@c")
    assert place_of("postgresql:///a?host=/run/x&user=me@work") == "postgresql:///run/x:5432/a"
