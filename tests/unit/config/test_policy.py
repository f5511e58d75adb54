from __future__ import annotations

import pytest

from credspec.config.policy import Policy
from credspec.errors import NotPermittedError
from credspec.spec.reference import SpecReference


@pytest.mark.parametrize(
    ("patterns", "account", "domain", "allowed"),
    [
        (("*",), "WebApp01", "contoso.com", True),
        (("WebApp*",), "webapp01", "emea.contoso.com", True),
        (("WebApp*@contoso.com",), "WebApp01", "contoso.com", True),
        (("WebApp*@contoso.com",), "WebApp01", "emea.contoso.com", False),
        (("WebApp*@contoso.com",), "Admin", "contoso.com", False),
        (("Web?pp01@*.contoso.com",), "WebApp01", "emea.CONTOSO.com", True),
        ((), "WebApp01", "contoso.com", False),
    ],
)
def test_accounts(patterns: tuple[str, ...], account: str, domain: str, allowed: bool) -> None:
    policy = Policy(accounts=patterns)
    if allowed:
        policy.check_accounts((account,), domain)
    else:
        with pytest.raises(NotPermittedError, match="policy-account"):
            policy.check_accounts((account,), domain)


def test_all_refused_accounts_are_told_at_once() -> None:
    with pytest.raises(NotPermittedError) as caught:
        Policy(accounts=("b",)).check_accounts(("a", "b", "c"), "contoso.com")
    assert [problem.found.split("@")[0] for problem in caught.value.problems] == ["a", "c"]


def test_raw_specs_are_off_unless_allowed() -> None:
    Policy().check_source(SpecReference("file", "www.json"))
    with pytest.raises(NotPermittedError, match="policy-spec-source"):
        Policy().check_source(SpecReference("raw", "{}"))
    Policy(spec_sources=("file", "raw")).check_source(SpecReference("raw", "{}"))


def test_users() -> None:
    assert Policy().allows_user(0, 500)
    assert Policy().allows_user(500, 500)
    assert not Policy().allows_user(501, 500)
    assert Policy(uids=frozenset({501})).allows_user(501, 500)


def test_keytabs_are_off_unless_allowed() -> None:
    with pytest.raises(NotPermittedError, match="policy-keytab") as caught:
        Policy().check_keytabs(("A", "B"), "contoso.com")
    assert len(caught.value.problems) == 2
    policy = Policy(keytabs=("web*", "B@emea.contoso.com"))
    policy.check_keytabs(("WebApp01",), "contoso.com")
    policy.check_keytabs(("b",), "EMEA.contoso.com")
    with pytest.raises(NotPermittedError, match="policy-keytab"):
        policy.check_keytabs(("WebApp01", "B"), "contoso.com")
