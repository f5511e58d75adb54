from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.errors import ShimError
from credspec.contract.service_names import (
    MOST_SERVICES,
    check_agreement,
    listed_services,
    parts_of,
)
from credspec.contract.ticket_options import kind_of_tickets


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("HTTP/intranet", ("HTTP", "intranet", None, None)),
        ("MSSQLSvc/sql.a.test:1433", ("MSSQLSvc", "sql.a.test", "1433", None)),
        ("MSSQLSvc/sql.a.test:INST$1", ("MSSQLSvc", "sql.a.test", "INST$1", None)),
        ("ldap/dc1.a.test@A.TEST", ("ldap", "dc1.a.test", None, "A.TEST")),
        ("host/10.0.0.1", ("host", "10.0.0.1", None, None)),
    ],
)
def test_names(text: str, parts: tuple[str | None, ...]) -> None:
    assert parts_of(text) == parts
    assert parts_of(text, is_pattern=True) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HTTP",
        "HTTP/",
        "/a",
        "HTTP/a/b",
        "HTTP/a:",
        "HTTP/a@",
        "HTTP/a b",
        "HTTP/a\n",
        "HTTP/a.",
        "HTTP/.a",
        "HTTP/a..b",
        "HTTP/-a",
        "HTTP/a\x00",
        "HTTP/ä",
        "HTTP/a,b",
        "krbtgt/A.TEST",
        "KRBTGT/A.TEST",
        "kadmin/changepw",
        "KAdmin/a",
        "HTTP/" + "a" * 300,
    ],
)
def test_what_is_no_name_is_no_pattern_either(text: str) -> None:
    assert parts_of(text) is None
    assert parts_of(text, is_pattern=True) is None


@pytest.mark.parametrize("text", ["HTTP/*", "HTTP/*.a.test", "HTTP/a.*.test:*", "MSSQLSvc/sql:*"])
def test_a_star_is_for_patterns(text: str) -> None:
    assert parts_of(text) is None
    assert parts_of(text, is_pattern=True) is not None


@pytest.mark.parametrize("text", ["*/a", "HT*/a", "HTTP/a*", "HTTP/*a.test", "HTTP/a:1*", "H/a@*"])
def test_a_star_is_a_whole_label_or_port(text: str) -> None:
    assert parts_of(text, is_pattern=True) is None


@given(st.text(max_size=80) | st.text("aA.:/@*-_$,1 \0\n", max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    found = parts_of(text)
    if found is not None:
        service_class, host, port, realm = found
        again = f"{service_class}/{host}" + (f":{port}" if port else "")
        assert again + (f"@{realm}" if realm else "") == text
        assert not set(text) & set("*, \0\n")
    try:
        names = listed_services(text, "services", is_pattern=True)
    except ShimError as error:
        assert error.code == "option-invalid"
    else:
        assert all(parts_of(name, is_pattern=True) for name in names)


def test_a_list_has_each_service_once_in_its_order() -> None:
    assert listed_services("HTTP/b, HTTP/a,http/B", "services") == ("HTTP/b", "HTTP/a")
    assert listed_services("", "services") == ()


def test_a_list_has_an_end() -> None:
    most = ",".join(f"HTTP/a{number}" for number in range(MOST_SERVICES))
    assert len(listed_services(most, "services")) == MOST_SERVICES
    for text in (f"{most},HTTP/b", "HTTP/" + "a" * 5000, "HTTP/a,,HTTP/b"):
        with pytest.raises(ShimError, match="option-invalid"):
            listed_services(text, "services")


@pytest.mark.parametrize(
    ("tickets", "services", "keytab", "code"),
    [
        ("tgt", ("HTTP/a",), False, "a container with a TGT has the tickets of all"),
        ("services", (), False, "without services"),
        ("services", ("HTTP/a",), True, "and a keytab"),
        ("broker", ("HTTP/a",), True, "and a keytab"),
        ("tgt", (), True, None),
        ("services", ("HTTP/a",), False, None),
        ("broker", (), False, None),
    ],
)
def test_options_that_contradict_each_other(
    tickets: str, services: tuple[str, ...], keytab: bool, code: str | None
) -> None:
    if code is None:
        check_agreement(tickets, services, keytab=keytab)
    else:
        with pytest.raises(ShimError, match=code) as caught:
            check_agreement(tickets, services, keytab=keytab)
        assert caught.value.code == "tickets-options"


def test_the_options_of_a_container() -> None:
    assert kind_of_tickets(None, None, keytab=True) == ("tgt", ())
    assert kind_of_tickets("TGT", "", keytab=True) == ("tgt", ())
    assert kind_of_tickets("Services", "HTTP/a,HTTP/b", keytab=False) == (
        "services",
        ("HTTP/a", "HTTP/b"),
    )
    assert kind_of_tickets("broker", "HTTP/*.a.test", keytab=False)[1] == ("HTTP/*.a.test",)
    with pytest.raises(ShimError, match=r"expected tgt, services, broker \[option-invalid\]"):
        kind_of_tickets("all", None, keytab=False)
    with pytest.raises(ShimError, match="no \\*"):
        kind_of_tickets("services", "HTTP/*.a.test", keytab=False)
    with pytest.raises(ShimError, match="tickets-options"):
        kind_of_tickets(None, "HTTP/a", keytab=False)
