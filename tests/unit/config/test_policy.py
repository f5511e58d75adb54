from __future__ import annotations

from pathlib import Path

import pytest

from credspec.config.host import load_config
from credspec.config.policy import SPEC_SOURCES, Policy, PolicyInForce
from credspec.errors import NotPermittedError, UsageError


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
        # An account of another domain than the spec's: the pattern's domain is the account's.
        (("*@contoso.com",), "Admin@other.test", "contoso.com", False),
        (("*@other.test",), "Admin@other.test", "contoso.com", True),
        (("Admin@contoso.com",), "Admin@other.test", "contoso.com", False),
        (("Admin",), "Admin@other.test", "contoso.com", True),
    ],
)
def test_accounts(patterns: tuple[str, ...], account: str, domain: str, allowed: bool) -> None:
    policy = Policy(accounts=patterns)
    if allowed:
        policy.check_accounts((account,), domain)
    else:
        with pytest.raises(NotPermittedError, match="policy-account"):
            policy.check_accounts((account,), domain)
    keytabs = Policy(accounts=("*",), keytabs=patterns)
    if allowed:
        keytabs.check_keytabs((account,), domain)
    else:
        with pytest.raises(NotPermittedError, match="policy-keytab"):
            keytabs.check_keytabs((account,), domain)


def test_all_refused_accounts_are_told_at_once() -> None:
    with pytest.raises(NotPermittedError) as caught:
        Policy(accounts=("b",)).check_accounts(("a", "b", "c"), "contoso.com")
    assert [problem.found.split("@")[0] for problem in caught.value.problems] == ["a", "c"]


def test_a_refusal_says_what_is_allowed() -> None:
    some, none = ("a*", "b"), ()
    for patterns, accounts, keytabs in (
        (some, "a* or b", "a* or b"),
        (none, "no account at all", "no keytab at all"),
    ):
        policy = Policy(accounts=patterns, keytabs=patterns, spec_sources=())
        with pytest.raises(NotPermittedError) as caught:
            policy.check_accounts(("c",), "contoso.com")
        assert caught.value.problems[0].expected == accounts
        with pytest.raises(NotPermittedError) as caught:
            policy.check_keytabs(("c",), "contoso.com")
        assert caught.value.problems[0].expected == keytabs
        with pytest.raises(NotPermittedError) as caught:
            policy.check_spec_source("file")
        assert caught.value.problems[0].expected == "no spec at all"


def test_raw_specs_are_off_unless_allowed() -> None:
    Policy().check_spec_source("file")
    with pytest.raises(NotPermittedError, match="policy-spec-source"):
        Policy().check_spec_source("raw")
    Policy(spec_sources=("file", "raw")).check_spec_source("raw")


def test_objects_of_a_cluster_are_off_unless_allowed() -> None:
    """Where they are on, a pod's annotation still brings no document of its own."""
    with pytest.raises(NotPermittedError, match=r"GMSACredentialSpec objects .* not allowed"):
        Policy().check_spec_source("kubernetes")
    policy = Policy(spec_sources=("kubernetes",))
    policy.check_spec_source("kubernetes")
    for source in ("raw", "file"):
        with pytest.raises(NotPermittedError, match="expected GMSACredentialSpec objects"):
            policy.check_spec_source(source)


def test_users() -> None:
    assert Policy().allows_user(0, 500)
    assert Policy().allows_user(500, 500)
    assert not Policy().allows_user(501, 500)
    policy = Policy(uids=frozenset({501}), grpc_uids=frozenset({502}))
    assert [uid for uid in (0, 500, 501, 502, 503) if policy.allows_user(uid, 500)] == [0, 500, 501]
    assert [uid for uid in (0, 500, 501, 502, 503) if policy.allows_grpc_user(uid)] == [0, 502]


@pytest.mark.parametrize(
    ("uid", "grpc", "table"),
    [
        (501, False, None),
        (502, True, None),
        (502, False, "policy"),
        (501, True, "credentials_fetc"),
    ],
)
def test_users_who_are_not_named_are_refused_with_the_table_to_name_them_in(
    uid: int, *, grpc: bool, table: str | None
) -> None:
    policy = Policy(uids=frozenset({501}), grpc_uids=frozenset({502}))
    policy.check_user(501)  # the agent's own interface, if none is said
    if table is None:
        policy.check_user(uid, grpc=grpc)
        return
    with pytest.raises(NotPermittedError, match="policy-user") as caught:
        policy.check_user(uid, grpc=grpc)
    assert f"[{table}" in caught.value.problems[0].remedy


def test_a_policy_put_in_force_counts_at_once_and_is_told() -> None:
    seen: list[Policy] = []
    in_force = PolicyInForce()
    in_force.watched.append(seen.append)
    assert not in_force.allows_user(501, 500)
    in_force.replace(Policy(uids=frozenset({501})))
    assert in_force.allows_user(501, 500)
    assert seen == [in_force.policy]


def test_keytabs_are_off_unless_allowed() -> None:
    with pytest.raises(NotPermittedError, match="policy-keytab") as caught:
        Policy().check_keytabs(("A", "B"), "contoso.com")
    assert len(caught.value.problems) == 2
    policy = Policy(keytabs=("web*", "B@emea.contoso.com"))
    policy.check_keytabs(("WebApp01",), "contoso.com")
    policy.check_keytabs(("b",), "EMEA.contoso.com")
    with pytest.raises(NotPermittedError, match="policy-keytab"):
        policy.check_keytabs(("WebApp01", "B"), "contoso.com")


@pytest.mark.parametrize("source", SPEC_SOURCES)
def test_where_specs_come_from_is_read(source: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[policy]\nspec_sources = ["{source}"]\n')
    policy = load_config(path).policy
    policy.check_spec_source(source)
    for other in set(SPEC_SOURCES) - {source}:
        with pytest.raises(NotPermittedError, match="policy-spec-source"):
            policy.check_spec_source(other)


@pytest.mark.parametrize("source", ["grpc", "File", "file ", "http", ""])
def test_specs_come_from_nowhere_else(source: str, tmp_path: Path) -> None:
    """Not by a mistake either, which would be found when a container is started."""
    path = tmp_path / "config.toml"
    path.write_text(f'[policy]\nspec_sources = ["file", "{source}"]\n')
    with pytest.raises(UsageError, match="spec_sources"):
        load_config(path)
