from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.agent.doors.credentials_fetcher.connections import caller_of
from credspec.agent.doors.credentials_fetcher.requests import (
    Refusal,
    RefusedCallError,
    aws_access,
    given_user,
    new_user,
    read_specs,
    renewed_user,
    spec_locations,
    valid_lease_id,
    why_no_ticket,
)
from credspec.errors import InvalidSpecError, NotPermittedError, Step, UnreachableError, joined
from support.specs.generated_specs import SPECS


def spec(*accounts: str, domain: str = "contoso.com", default: str = "Other01") -> str:
    entries = [{"Name": name, "Scope": domain} for name in accounts]
    return json.dumps(
        {
            "CmsPlugins": ["ActiveDirectory"],
            "DomainJoinConfig": {"DnsName": domain, "MachineAccountName": default},
            "ActiveDirectoryConfig": {"GroupManagedServiceAccounts": entries},
        }
    )


def test_the_first_account_is_the_one() -> None:
    [wanted] = read_specs([spec("WebApp01", "WebApp02", "webapp01$")])
    assert (wanted.name, wanted.domain) == ("WebApp01", "contoso.com")
    assert wanted.spec.default_account == "WebApp01"
    assert wanted.spec.accounts == ("WebApp01",)


@pytest.mark.parametrize(
    ("accounts", "default", "account", "directory"),
    [
        (("WebApp01", "WebApp02"), "Other01", "WebApp01", "WebApp01"),
        (("WebApp01", "WebApp02"), "WebApp02", "WebApp02", "WebApp02"),
        (("WebApp01", "WebApp02"), "webapp02", "WebApp02", "WebApp02"),
        (("WebApp01", "WebApp02$"), "WebApp02", "WebApp02", "WebApp02"),
        (("WebApp01", "WebApp02"), "WebApp02$", "WebApp02", "WebApp02$"),
        (("WebApp01$", "WebApp02"), "WebApp01$", "WebApp01", "WebApp01$"),
        (("", "WebApp02"), "x/y", "WebApp02", "WebApp02"),
        (("a/b", "WebApp02"), "WebApp02", "WebApp02", "WebApp02"),
    ],
)
def test_the_account_that_the_ecs_agent_looks_for(
    accounts: tuple[str, ...], default: str, account: str, directory: str
) -> None:
    """It takes the path that has MachineAccountName in it, in any letter case."""
    [wanted] = read_specs([spec(*accounts, default=default)])
    assert (wanted.spec.default_account, wanted.name) == (account, directory)
    assert wanted.spec.accounts == (account,)
    if default.casefold().rstrip("$") == account.casefold():
        assert default.lower() in wanted.name.lower()


def test_an_account_that_is_wanted_twice() -> None:
    twice = read_specs([spec("WebApp01"), spec("WEBAPP01"), spec("WebApp02")])
    assert [wanted.name for wanted in twice] == ["WebApp01", "WebApp02"]
    with pytest.raises(RefusedCallError, match=r"^ERROR: found duplicate mount paths: "):
        read_specs([spec("WebApp01"), spec("WebApp01", domain="fabrikam.com")])


@given(st.lists(st.one_of(st.text(), SPECS.map(json.dumps)), max_size=4))
def test_specs_are_read_or_refused(texts: list[str]) -> None:
    try:
        wanted = read_specs(texts)
    except RefusedCallError as refused:
        assert refused.refusal in {Refusal.SPEC_MALFORMED, Refusal.DUPLICATE}
    else:
        for ticket in wanted:
            assert len(PurePosixPath("a", ticket.name, "b").parts) == 3
            assert ticket.name not in {".", ".."}


@pytest.mark.parametrize(
    ("name", "password", "domain", "refusal"),
    [
        ("", "p", "contoso.com", Refusal.CREDENTIALS),
        ("u", "", "contoso.com", Refusal.CREDENTIALS),
        ("u", "p", "", Refusal.CREDENTIALS),
        ("u" * 104, "p", "contoso.com", Refusal.CREDENTIALS),
        ("u", "p" * 104, "contoso.com", Refusal.CREDENTIALS),
        ("u", "p", f"{'a.' * 126}com", Refusal.CREDENTIALS),
        ("u", "p\0q", "contoso.com", Refusal.CREDENTIALS),
        ("old:new", "p", "contoso.com", Refusal.DOMAIN_OR_USER),
        ("u@contoso.com", "p", "contoso.com", Refusal.DOMAIN_OR_USER),
        ("CONTOSO\\u", "p", "contoso.com", Refusal.DOMAIN_OR_USER),
        ("u;id", "p", "contoso.com", Refusal.DOMAIN_OR_USER),
        ("u\n", "p", "contoso.com", Refusal.DOMAIN_OR_USER),
        ("u", "p", "CONTOSO", Refusal.DOMAIN_OR_USER),
        ("u", "p", "contoso..com", Refusal.DOMAIN_OR_USER),
        ("u", "p", "contoso.com/x", Refusal.DOMAIN_OR_USER),
    ],
)
def test_users_that_are_none(name: str, password: str, domain: str, refusal: Refusal) -> None:
    with pytest.raises(RefusedCallError) as caught:
        given_user(name, password, domain)
    assert caught.value.refusal is refusal


def test_a_user_does_not_show_its_password() -> None:
    user = given_user("alice", "correct horse\nbattery", "Contoso.COM")
    assert str(user) == "alice@contoso.com"
    assert "horse" not in repr(user)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("alice", ("alice", "alice")), ("alice:bob", ("alice", "bob")), ("a:a", ("a", "a"))],
)
def test_old_and_new_users(name: str, expected: tuple[str, str]) -> None:
    old, user = renewed_user(name, "p", "contoso.com")
    assert (old, user.name) == expected


@pytest.mark.parametrize("name", [":", "old:", ":new", "a:b:c", "a/b:c", "a:b/c"])
def test_old_and_new_users_that_are_none(name: str) -> None:
    with pytest.raises(RefusedCallError, match=r"^Error: invalid domainName/username: "):
        renewed_user(name, "p", "contoso.com")


@pytest.mark.parametrize(
    ("name", "expected"), [("alice", "alice"), ("alice:bob", "bob"), ("a:a", "a"), (":bob", "bob")]
)
def test_the_user_of_a_new_lease_amid_a_rotation(name: str, expected: str) -> None:
    assert new_user(name, "p", "contoso.com").name == expected


@pytest.mark.parametrize(
    "name", [":", "old:", "a:b:c", "a/b:c", "a:b/c", "a:b\n", f"a:{'b' * 104}"]
)
def test_users_of_a_new_lease_that_are_none(name: str) -> None:
    with pytest.raises(RefusedCallError) as caught:
        new_user(name, "p", "contoso.com")
    assert caught.value.error.code == "user-invalid"
    if name in {":", "old:"}:
        assert "no user after the colon" in str(caught.value)
        assert "OLD:NEW" in str(caught.value)


@given(st.text(max_size=12), st.text(max_size=12))
def test_of_old_and_new_the_new_one_is_the_user(old: str, new: str) -> None:
    try:
        alone = given_user(new, "p", "contoso.com")
    except RefusedCallError:
        return
    try:
        both = new_user(f"{old}:{new}", "p", "contoso.com")
    except RefusedCallError:
        with pytest.raises(RefusedCallError):
            given_user(old, "p", "contoso.com")
        return
    assert both == alone


@given(st.text(max_size=70))
def test_a_lease_id_is_one_part_of_a_path(lease: str) -> None:
    try:
        found = valid_lease_id(lease)
    except RefusedCallError as refused:
        assert str(refused).startswith("Error: lease_id is not valid: ")
    else:
        assert PurePosixPath("/tree", found).parent == PurePosixPath("/tree")
        assert found.isascii()


ARN = "arn:aws:s3:::specs/www/one.json#0123456789abcdef0123456789abcdef/web"


def test_arns() -> None:
    [location] = spec_locations([ARN])
    assert (location.arn, location.bucket, location.key) == (
        "arn:aws:s3:::specs/www/one.json",
        "specs",
        "www/one.json",
    )
    assert (location.task, location.name) == ("0123456789abcdef0123456789abcdef", "web")


@pytest.mark.parametrize(
    ("arns", "refusal"),
    [
        ([""], Refusal.ARN_EMPTY),
        (["arn:aws:s3:::specs/one.json"], Refusal.ARN),
        (["arn:aws:ssm:::specs/one.json#t/m"], Refusal.ARN),
        (["arn:aws:s3:::Specs/one.json#t/m"], Refusal.ARN),
        (["arn:aws:s3:::specs#t/m"], Refusal.ARN),
        (["arn:aws:s3:::specs/a\nb#t/m"], Refusal.ARN),
        (["arn:aws:s3:::specs/a#t/m#x"], Refusal.MOUNT),
        (["arn:aws:s3:::specs/a#../m"], Refusal.MOUNT),
        (["arn:aws:s3:::specs/a#t/.."], Refusal.MOUNT),
        (["arn:aws:s3:::specs/a#t/m/n"], Refusal.MOUNT),
        (["arn:aws:s3:::specs/a#t"], Refusal.MOUNT),
        (["arn:aws:s3:::specs/a#/m"], Refusal.MOUNT),
        (["arn:aws:s3:::specs/a#t/m;id"], Refusal.MOUNT),
        ([ARN, ARN.replace("one", "two")], Refusal.DUPLICATE),
        ([ARN, ARN.replace("#0", "#1").replace("/web", "/db")], Refusal.ARN),
        ([f"{ARN}{number}" for number in range(101)], Refusal.ARN),
    ],
)
def test_arns_that_are_none(arns: list[str], refusal: Refusal) -> None:
    with pytest.raises(RefusedCallError) as caught:
        spec_locations(arns)
    assert caught.value.refusal is refusal


mounts = st.text("aZ09/._-#", max_size=20)


@given(
    st.lists(
        st.one_of(st.text(), st.text().map("arn:aws:s3:::specs/a#".__add__))
        | mounts.map("arn:aws:s3:::specs/a#".__add__)
        | st.builds("arn:aws:s3:::specs/{}#{}/{}".format, mounts, mounts, mounts),
        max_size=3,
    )
)
@example(["arn:aws:s3:::specs/a#task/mount"])
@example(["arn:aws:s3:::specs/a/b.json#t/m1", "arn:aws:s3:::specs/a/c.json#t/m2"])
def test_arns_are_read_or_refused(arns: list[str]) -> None:
    try:
        locations = spec_locations(arns)
    except RefusedCallError:
        return
    for location in locations:
        assert len(PurePosixPath("/tree", location.task, location.name).parts) == 4
        assert location.name not in {".", ".."}


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("value", ["", "a\nb", "é", " "])
def test_access_keys_that_are_none(index: int, value: str) -> None:
    values = ["AKIA", "secret", "token", "eu-west-1"]
    shown = repr(aws_access(*values))
    assert "secret" not in shown
    assert "token" not in shown
    values[index] = value
    with pytest.raises(RefusedCallError, match="access credentials should not be empty"):
        aws_access(*values)


def test_which_step_failed() -> None:
    hosts = NotPermittedError.of("host-keytab-missing", "x")
    hosts.step = Step.HOST_LOGON
    accounts = NotPermittedError.of("password-not-permitted", "x")
    nobody = UnreachableError.of("domain-timeout", "x")
    assert why_no_ticket(hosts, has_user=False) is Refusal.HOST_TICKET
    assert why_no_ticket(nobody, has_user=True) is Refusal.USER_TICKET
    assert why_no_ticket(accounts, has_user=True) is Refusal.ACCOUNT_TICKET
    wrong = InvalidSpecError.of("spec-sid-invalid", "x")
    assert why_no_ticket(wrong, has_user=False) is Refusal.SPEC_FIELDS


@given(
    step=st.sampled_from([None, *Step]),
    code=st.sampled_from(["host-keytab-stale", "kdc-policy", "kdc-account-disabled", "x"]),
    where=st.sampled_from(["ticket of HOST1$@EXAMPLE.TEST", "ticket of reader@EXAMPLE.TEST", ""]),
    has_user=st.booleans(),
)
def test_no_text_says_which_step_failed(
    step: Step | None, code: str, where: str, *, has_user: bool
) -> None:
    """The host's own principal ends in a dollar sign as well."""
    error = NotPermittedError.of(code, "x", where=where)
    error.step = step
    of_host = Refusal.USER_TICKET if has_user else Refusal.HOST_TICKET
    expected = of_host if step is Step.HOST_LOGON else Refusal.ACCOUNT_TICKET
    assert why_no_ticket(error, has_user=has_user) is expected
    assert why_no_ticket(joined([error.detached()]), has_user=has_user) is expected


def test_the_caller_by_the_name_of_the_connection() -> None:
    caller = caller_of("unix:/run/credspec/grpc/c-1000-4321-7")
    assert caller is not None
    assert (caller.uid, caller.pid) == (1000, 4321)
    for other in ("unix:", "unix:/run/credspec/grpc/s", "ipv4:127.0.0.1:1", "unix:/x/c-1-2-3/.."):
        assert caller_of(other) is None
