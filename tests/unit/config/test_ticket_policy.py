from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from credspec.config.host import load_config
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.kerberos.service_names import ServiceName

TEXT = """
[policy]
tickets = ["services", "tgt"]
[policy.services]
"WebApp01@a.test" = ["MSSQLSvc/sql1.a.test:1433", "HTTP/*.apps.a.test"]
"WebApp*" = ["cifs/files.a.test@A.TEST"]
[policy.ticket_life]
MSSQLSvc = "90s"
"*" = "1h30m"
"""


def policy(text: str, tmp_path: Path) -> Policy:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(path).policy


def names(*texts: str) -> list[ServiceName]:
    return [name for name in map(ServiceName.parse, texts) if name is not None]


def codes(error: CredspecError) -> list[str]:
    return [problem.code for problem in error.problems]


def test_without_a_table_nothing_is_limited() -> None:
    for kind in ("tgt", "services", "broker"):
        Policy().check_tickets(kind, ("WebApp01",), "a.test")
    Policy().check_services(names("HTTP/a", "cifs/b"), ("WebApp01",), "a.test")
    assert Policy().services_of("WebApp01@a.test") is None


def test_an_account_that_is_listed_never_gets_a_tgt(tmp_path: Path) -> None:
    found = policy(TEXT, tmp_path)
    with pytest.raises(NotPermittedError) as caught:
        found.check_tickets("tgt", ("WebApp01", "Other", "WebApp02@b.test"), "a.test")
    assert codes(caught.value) == ["policy-tgt", "policy-tgt"]
    found.check_tickets("services", ("WebApp01",), "a.test")
    found.check_tickets("tgt", ("Other",), "a.test")


def test_a_kind_that_the_host_does_not_hand_out(tmp_path: Path) -> None:
    with pytest.raises(NotPermittedError) as caught:
        policy(TEXT, tmp_path).check_tickets("broker", ("Other",), "a.test")
    assert codes(caught.value) == ["policy-tickets"]
    assert caught.value.problems[0].expected == "tickets=services or tickets=tgt"


def test_services_that_an_account_may_have(tmp_path: Path) -> None:
    found = policy(TEXT, tmp_path)
    allowed = names("mssqlsvc/SQL1.a.test:1433", "HTTP/x.apps.a.test", "cifs/files.a.test")
    found.check_services(allowed, ("WebApp01",), "a.test")
    with pytest.raises(NotPermittedError) as caught:
        found.check_services(names("HTTP/x.a.test", "ldap/dc1"), ("WebApp01",), "a.test")
    assert codes(caught.value) == ["policy-service"] * 2
    # Of another domain: only the pattern without a domain counts, and the realm is another.
    with pytest.raises(NotPermittedError):
        found.check_services(allowed[:1], ("WebApp01",), "b.test")
    with pytest.raises(NotPermittedError):
        found.check_services(names("cifs/files.a.test"), ("WebApp01@b.test",), "a.test")
    found.check_services(names("cifs/files.a.test@a.test"), ("WebApp01@b.test",), "a.test")
    found.check_services(names("anything/at.all"), ("Other",), "a.test")


def test_lives_by_class(tmp_path: Path) -> None:
    default, given = Policy(), policy(TEXT, tmp_path)
    assert default.life_of("CIFS") == default.life_of("ldap") == timedelta(hours=1)
    assert default.life_of("MSSQLSvc") == default.life_of("postgres") == timedelta(minutes=10)
    assert given.life_of("mssqlsvc") == timedelta(seconds=90)
    assert given.life_of("HTTP") == timedelta(minutes=90)
    # What ends a session with its ticket keeps its own default.
    assert given.life_of("cifs") == timedelta(hours=1)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('tickets = ["all"]', "'all'"),
        ('services = "x"', "expected a table"),
        ('services = { "a b" = ["HTTP/a"] }', "'a b'"),
        ('services = { a = ["HTTP/*x"] }', "a: 'HTTP/"),
        ('services = { a = ["krbtgt/A"] }', "krbtgt"),
        ('services = { a = "HTTP/a" }', "a: 'HTTP/a'"),
        ('ticket_life = { "a b" = "1h" }', "'a b'"),
        ('ticket_life = { cifs = "1" }', "cifs: '1'"),
        ('ticket_life = { cifs = "0s" }', "cifs: '0s'"),
        ('ticket_life = { cifs = "25h" }', "cifs: '25h'"),
        ("ticket_life = { cifs = 60 }", "cifs: 60"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(UsageError, match="config-wrong-value") as caught:
        policy(f"[policy]\n{line}\n", tmp_path)
    assert found in str(caught.value)
