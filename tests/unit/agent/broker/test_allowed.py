"""Whether patterns allow a service; their syntax is tested in tests/unit/kerberos."""

from __future__ import annotations

import pytest

from credspec.agent.broker.allowed import DeniedError, Patterns, check, of_any_realm
from credspec.kerberos.service_names import ServiceName, ServicePattern

OWN, OTHER = "A.TEST", "B.TEST"


def name(text: str) -> ServiceName:
    found = ServiceName.parse(text)
    assert found is not None
    return found


def patterns(*texts: str) -> Patterns:
    found = tuple(ServicePattern.parse(text) for text in texts)
    return tuple(each for each in found if each is not None)


def test_the_first_pattern_that_covers_a_service_is_named() -> None:
    allowed = patterns("cifs/*", "HTTP/x", "HTTP/*")
    assert check(allowed, name("http/X"), OWN) == "HTTP/x"
    assert check(allowed, name("HTTP/y"), OWN) == "HTTP/*"


def test_without_a_limit_no_pattern_is_named() -> None:
    assert check(None, name("HTTP/x"), OWN) is None


@pytest.mark.parametrize("allowed", [(), patterns("HTTP/y"), patterns(f"HTTP/x@{OTHER}")])
def test_what_no_pattern_covers_is_denied(allowed: Patterns) -> None:
    with pytest.raises(DeniedError, match="no pattern covers http/x"):
        check(allowed, name("HTTP/x"), OWN)


def test_the_realm_counts_when_it_is_known() -> None:
    allowed = patterns(f"HTTP/x@{OTHER}")
    assert check(of_any_realm(allowed), name("HTTP/x"), OWN) == f"HTTP/x@{OTHER}"
    assert check(allowed, name(f"HTTP/x@{OTHER}"), OWN) is not None
    assert of_any_realm(None) is None
