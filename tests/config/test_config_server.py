"""`server:` of clearance.yaml, up to the settings that a server runs with."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from clearance.config import ConfigInvalid, ServerOptions, load, parse
from clearance.server.settings import Settings, settings_of

WHOLE = """
ledger: sqlite:///budget.db
server:
  host: 0.0.0.0
  port: 8080
  admin_port: 8081
  store: sqlite:///server.db
  durability: power
  admin_key_file: admin.key
  requests_per_second: 200
  max_body_bytes: 65536
  max_header_bytes: 8192
  read_seconds: 2.5
  keep_alive_seconds: 30
  drain_seconds: 5
  max_streams: 10
  key_cache_seconds: 0.5
  webhook_private: yes
  webhook_http: true
  webhook_timeout_seconds: 3
  poll_seconds: 0.05
"""


def test_everything_of_the_file_reaches_the_settings(tmp_path: Path) -> None:
    (tmp_path / "clearance.yaml").write_text(WHOLE)
    config = load(tmp_path / "clearance.yaml")
    it = config.server
    assert (it.host, it.port, it.admin_port, it.durability) == ("0.0.0.0", 8080, 8081, "power")
    assert config.store_url == f"sqlite:///{tmp_path}/server.db"
    settings = settings_of(it, config.admin_key_file)
    assert settings == Settings(
        requests_per_second=200,
        max_body_bytes=65536,
        max_header_bytes=8192,
        read_seconds=2.5,
        keep_alive_seconds=30,
        drain_seconds=5,
        max_streams=10,
        key_cache_seconds=0.5,
        webhook_private=True,
        webhook_http=True,
        webhook_timeout_seconds=3.0,
        poll_seconds=0.05,
        admin_key_file=tmp_path / "admin.key",
    )


def test_every_setting_but_the_secret_can_be_configured() -> None:
    configurable = {field.name for field in fields(ServerOptions)}
    assert {field.name for field in fields(Settings)} - configurable == {"admin_key"}


@pytest.mark.parametrize("text", ["", "server:", "server: {}", "ledger: a.db\nserver: {port: ~}"])
def test_what_is_not_said_keeps_its_default(text: str) -> None:
    config = parse(text)
    assert settings_of(config.server, config.admin_key_file) == Settings()
    assert config.server.port is None
    assert config.store_url == config.ledger_url


BAD = [
    ("server: 5", "server: 5 is not a mapping"),
    ("server:\n  prot: 7878", "clearance.yaml:2: server.prot: is not known here; did you mean port?"),
    ("server: {webhook_privat: true}", "server.webhook_privat: is not known here; did you mean webhook_private?"),
    ("server: {port: 99999}", "server.port: 99999 is refused; allowed: a whole number, 0 to 65535"),
    ("server: {port: '80'}", "server.port: '80' is refused"),
    ("server: {port: true}", "server.port: true is refused"),
    ("server: {host: 5}", "server.host: 5 is no host"),
    ("server: {store: ''}", "server.store: '' is not a URL"),
    ("server: {durability: powr}", "server.durability: 'powr' is unknown; did you mean power?"),
    ("server: {max_body_bytes: 12}", "server.max_body_bytes: 12 is refused; allowed: a whole number, 1024 to"),
    ("server: {read_seconds: 0}", "server.read_seconds: 0 is refused; allowed: seconds, 0.1 to 3600"),
    ("server: {read_seconds: soon}", "server.read_seconds: 'soon' is refused"),
    ("server: {read_seconds: .nan}", "server.read_seconds: .nan is refused"),
    ("server: {read_seconds: [1]}", "server.read_seconds: a list is refused"),
    ("server: {webhook_http: 1}", "server.webhook_http: 1 is refused; allowed: true or false"),
    ("server: {admin_key: hunter2}", "server.admin_key: is a secret, and this file is not the place for one"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text[:50] for text, _ in BAD])
def test_a_bad_section_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_bad_server_section_keeps_nobody_from_the_ledger() -> None:
    assert parse("ledger: a.db\nserver: {port: no}", sections=("ledger",)).ledger == "a.db"
