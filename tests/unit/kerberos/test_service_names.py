from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.service_names import ServiceName, ServicePattern


def name(text: str) -> ServiceName:
    found = ServiceName.parse(text)
    assert found is not None
    return found


def covers(pattern: str, text: str, realm: str = "A.TEST") -> bool:
    found = ServicePattern.parse(pattern)
    assert found is not None
    return found.covers(name(text), realm)


@pytest.mark.parametrize(
    ("pattern", "text", "is_covered"),
    [
        ("HTTP/www.a.test", "http/WWW.a.Test", True),
        ("HTTP/www.a.test", "HTTP/www.b.test", False),
        ("HTTP/www.a.test", "cifs/www.a.test", False),
        ("HTTP/*.a.test", "HTTP/www.a.test", True),
        ("HTTP/*.a.test", "HTTP/a.test", False),
        ("HTTP/*.a.test", "HTTP/x.y.a.test", False),
        ("HTTP/*.*.a.test", "HTTP/x.y.a.test", True),
        ("HTTP/*", "HTTP/www", True),
        ("HTTP/*", "HTTP/www.a.test", False),
        # SQL Server registers both forms, and each is listed.
        ("MSSQLSvc/sql.a.test", "MSSQLSvc/sql.a.test:1433", False),
        ("MSSQLSvc/sql.a.test:1433", "MSSQLSvc/sql.a.test", False),
        ("MSSQLSvc/sql.a.test:*", "MSSQLSvc/sql.a.test:1433", True),
        ("MSSQLSvc/sql.a.test:*", "MSSQLSvc/sql.a.test", False),
        ("MSSQLSvc/sql.a.test:Inst", "MSSQLSvc/sql.a.test:INST", True),
        ("HTTP/www.a.test@A.TEST", "HTTP/www.a.test", True),
        ("HTTP/www.a.test@A.TEST", "HTTP/www.a.test@a.test", True),
        ("HTTP/www.a.test@A.TEST", "HTTP/www.a.test@B.TEST", False),
        ("HTTP/www.a.test", "HTTP/www.a.test@B.TEST", True),
        ("HTTP/www.a.test@B.TEST", "HTTP/www.a.test", False),
    ],
)
def test_patterns(pattern: str, text: str, is_covered: bool) -> None:
    assert covers(pattern, text) is is_covered


_LABELS = st.text("ab1", min_size=1, max_size=3)
_HOSTS = st.lists(_LABELS, min_size=1, max_size=4).map(".".join)


@given(st.sampled_from(["HTTP", "cifs"]), _HOSTS, st.none() | st.sampled_from(["1", "80"]))
def test_a_name_is_a_pattern_that_covers_itself_in_any_case(
    service_class: str, host: str, port: str | None
) -> None:
    text = f"{service_class}/{host}" + (f":{port}" if port else "")
    assert covers(text, text)
    assert covers(text.upper(), text.lower())
    assert name(text.upper()) == name(text.lower())
    assert hash(name(text.upper())) == hash(name(text.lower()))


@given(_HOSTS, _HOSTS)
def test_a_star_covers_as_many_labels_as_there_are_stars(pattern: str, host: str) -> None:
    stars = ".".join("*" for _ in pattern.split("."))
    assert covers(f"HTTP/{stars}", f"HTTP/{host}") is (
        len(pattern.split(".")) == len(host.split("."))
    )


def test_clients_look_a_name_up_with_the_host_in_lower_case() -> None:
    assert name("HTTP/WWW.a.test").spellings == ("HTTP/www.a.test", "HTTP/WWW.a.test")
    assert name("MSSQLSvc/sql.a.test:INST@A.TEST").spellings == ("MSSQLSvc/sql.a.test:INST",)
    assert name("HTTP/a@B.TEST").spn == "HTTP/a"


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_none(text: str) -> None:
    found = ServiceName.parse(text)
    if found is not None:
        assert str(found) == text
        assert covers(text, text)
