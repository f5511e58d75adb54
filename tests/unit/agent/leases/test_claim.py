"""Claims over real files and a simulated domain: what refuses a lease, and that it is all there is.

Whatever is refused has had no effect: no password read, no record, no file, no secret kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.agent.audit import Caller
from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.request import LeaseRequest, MalformedReference, requested_spec
from credspec.config.policy import GRPC_SOURCE, Policy
from credspec.directory.domain import DomainFacts
from credspec.errors import CredspecError, NotFoundError, Step, TooManyRequestsError
from credspec.providers.provider import GivenAccount, HostAccount, PluginSource
from credspec.providers.selection import Providers
from credspec.providers.settings import ProviderSettings
from credspec.spec.document import CredentialSpec
from credspec.spec.reference import SpecReference
from support.agent.scripted_leases import (
    FACTS,
    ScriptedLeases,
    SimulatedSession,
    directory_in_memory,
    raw_spec,
)

USER = 4711
OTHER = replace(
    FACTS,
    dns_name="other.test",
    netbios_name="OTHER",
    forest="other.test",
    guid="344818ae-87ca-4fcd-92ec-e79e5252348a",
    sid="S-1-5-21-4-5-6",
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found


def document(*accounts: str, **domain: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw_spec(*(accounts or ("WebApp01",)))[len("raw://") :])
    found["DomainJoinConfig"] |= domain
    return found


def parsed(found: dict[str, Any]) -> CredentialSpec:
    return CredentialSpec.from_text(json.dumps(found))


def with_scope(scope: str) -> CredentialSpec:
    found = document()
    found["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"].append(
        {"Name": "OtherApp", "Scope": scope}
    )
    return parsed(found)


def document_with_plugin(guid: str, given: str) -> dict[str, Any]:
    found = document()
    found["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": guid,
        "PluginInput": given,
    }
    return found


def with_plugin(guid: str, given: str) -> CredentialSpec:
    return parsed(document_with_plugin(guid, given))


INLINE = with_plugin("{11111111-2222-3333-4444-555555555555}", "example.test:reader:hunter2")


@dataclass(frozen=True)
class Refused:
    """A request that is refused, by which code, and whether the domain was asked by then."""

    code: str
    change: Callable[[LeaseRequest], LeaseRequest]
    policy: Policy = Policy(spec_sources=("file", "raw"))  # noqa: RUF009 - frozen
    asked: bool = False


def spec(value: Any, **more: Any) -> Callable[[LeaseRequest], LeaseRequest]:
    found = requested_spec(value) if isinstance(value, str) else value
    return lambda request: replace(request, spec=found, document_is_vouched_for=False, **more)


REFUSED = [
    Refused("spec-reference-invalid", spec("www.json")),
    Refused("spec-reference-registry", spec("registry://www")),
    Refused("policy-spec-source", spec("raw://{}"), Policy()),
    Refused("policy-spec-source", spec(SpecReference("file", "one.json")), Policy(spec_sources=())),
    Refused("policy-spec-source", spec(parsed(document())), Policy()),
    Refused("spec-not-json", spec("raw://{")),
    Refused("spec-file-unreadable", spec("file://none.json")),
    Refused("spec-path-outside", spec("file://../one.json")),
    Refused(
        "policy-account",
        spec(parsed(document("Other"))),
        Policy(spec_sources=("raw",), accounts=("WebApp*",)),
    ),
    Refused("policy-keytab", spec(parsed(document()), keytab=True)),
    Refused("host-account-inline", spec(INLINE)),
    Refused("host-account-guid", spec("raw://" + json.dumps(document_with_plugin("x", "y")))),
    Refused(
        "host-account-invalid",
        spec(parsed(document()), host_account=HostAccount("example.test", "", "hunter2")),
    ),
    Refused("spec-domain-guid-differs", spec(parsed(document(Guid=OTHER.guid))), asked=True),
    Refused("spec-domain-sid-differs", spec(parsed(document(Sid=OTHER.sid))), asked=True),
    Refused("domain-not-trusted", spec(with_scope("NOBODY")), asked=True),
    Refused("domain-netbios-name-differs", spec(with_scope("LIAR")), asked=True),
    Refused(
        "policy-account",
        spec(with_scope("OTHER")),
        Policy(spec_sources=("raw",), accounts=("*@example.test",)),
        asked=True,
    ),
]


FAULTS: list[Callable[[LeaseRequest], LeaseRequest]] = [
    lambda request: replace(request, spec=requested_spec("www.json")),
    lambda request: replace(request, document_is_vouched_for=False),
    lambda request: replace(request, spec=parsed(document("Other"))),
    lambda request: replace(request, spec=parsed(document(Guid=OTHER.guid))),
    lambda request: replace(request, spec=with_scope("NOBODY")),
    lambda request: replace(request, spec=INLINE, host_account=None),
    lambda request: replace(request, host_account=HostAccount("other.test", "reader", "hunter2")),
    lambda request: replace(request, caller=Caller(USER, 1)),
]


class AskedSession(SimulatedSession):
    """A domain that is asked what it is, and counts that; it trusts other.test."""

    asked = 0

    def __init__(self) -> None:
        super().__init__()
        self.known_facts = None

    def facts(self) -> DomainFacts:
        self.asked += 1
        return FACTS

    read_facts = facts

    def domain_named(self, name: str) -> str:
        self.asked += 1
        # Its administrators say that a second name leads to the other domain, too.
        if name.upper() in {"OTHER", "LIAR"}:
            return OTHER.dns_name
        raise NotFoundError.of("domain-not-trusted", "simulated")


class OtherSession(SimulatedSession):
    domain = OTHER.dns_name

    def __init__(self) -> None:
        super().__init__()
        self.known_facts = OTHER


class AskedLeases(ScriptedLeases):
    def __init__(
        self, directory: Path, policy: Policy, *, providers: Providers | None = None
    ) -> None:
        super().__init__(directory, policy, providers=providers)
        self.session: AskedSession = AskedSession()
        self.sessions[OTHER.dns_name] = OtherSession()
        (directory / "one.json").write_text(json.dumps(document()))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.code)
async def test_what_is_refused_has_no_effect(directory: Path, case: Refused) -> None:
    bench = AskedLeases(directory, case.policy)
    with pytest.raises(CredspecError) as caught:
        await bench.leases.make(case.change(bench.request(1)))
    assert case.code in {problem.code for problem in caught.value.problems}
    assert (bench.session.asked > 0) is case.asked
    assert_untouched(bench)
    (line,) = bench.audited()
    assert line["decision"] == "denied"
    assert case.code in line["errors"]
    assert "hunter2" not in json.dumps(line)
    await bench.close()


def assert_untouched(bench: ScriptedLeases) -> None:
    assert bench.session.acquired == 0
    assert bench.leases.all() == []
    assert bench.identities.held() == []
    assert list((bench.directory / "journal").iterdir()) == []
    assert not [path for path in (bench.directory / "tree").rglob("*") if path.is_file()]
    assert not bench.leases._table.sources
    assert not bench.leases._table.secrets._held


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.sampled_from(range(len(FAULTS)))))
def test_any_fault_refuses_a_lease_whatever_else_is_right(faults: set[int]) -> None:
    """Every combination of faults, which no order of the checks lets through."""

    async def run() -> None:
        with directory_in_memory() as place:
            policy = Policy(spec_sources=("file",), accounts=("WebApp*", "OtherApp"))
            bench = AskedLeases(place, policy)
            request = bench.request(1)
            for number in sorted(faults):
                request = FAULTS[number](request)
            if not faults:
                record = await bench.leases.make(request)
                assert bench.leases.all() == [record]
            else:
                with pytest.raises(CredspecError):
                    await bench.leases.make(request)
                assert_untouched(bench)
            await bench.close()

    asyncio.run(run())


async def test_a_place_does_not_vouch_for_a_document(directory: Path) -> None:
    """Only the field does, wherever the files of the lease are."""
    bench = AskedLeases(directory, Policy(spec_sources=("file",)))
    request = bench.request(1)
    assert request.place is not None
    assert request.document_is_vouched_for
    with pytest.raises(CredspecError, match="policy-spec-source"):
        await bench.leases.make(replace(request, document_is_vouched_for=False))
    claim = await bench.leases._claims.examine(replace(request, place=None))
    assert claim.record.spec_source == GRPC_SOURCE
    assert claim.record.place is None
    await bench.close()


async def test_a_spec_that_was_read_is_not_read_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = AskedLeases(directory, Policy())
    found = parsed(document("WebApp01", "WebApp02"))
    request = replace(bench.request(1), spec=found)

    def refuses(*_: object, **__: object) -> CredentialSpec:
        raise AssertionError("it was parsed a second time")

    for name in ("from_text", "from_bytes", "from_json"):
        monkeypatch.setattr(CredentialSpec, name, refuses)
    record = await bench.leases.make(request)
    assert record.accounts == ("WebApp01", "WebApp02")
    (line,) = bench.audited()
    text = found.to_text(compact=True)
    assert line["spec"] == f"raw:sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    await bench.close()


async def test_a_claim_says_all_that_the_lease_is(directory: Path) -> None:
    bench = AskedLeases(directory, Policy(keytabs=("*",)))
    request = replace(
        bench.request(1), spec=with_scope("OTHER"), keytab=True, mode=0o640, uid=7, gid=8
    )
    claim = await bench.leases._claims.examine(request)
    assert claim.source is None
    assert claim.record == LeaseRecord(
        lease_id=request.lease_id,
        container=request.container,
        runtime_state=request.runtime_state,
        uid=7,
        gid=8,
        mode=0o640,
        keytab=True,
        domain="example.test",
        default_account="WebApp01",
        accounts=("WebApp01", "OtherApp@other.test"),
        created=claim.record.created,
        created_monotonic=claim.record.created_monotonic,
        place=request.place,
        spec_source=GRPC_SOURCE,
    )
    assert_untouched(bench)
    await bench.close()


async def test_the_spec_directory_is_read_once_for_a_request(directory: Path) -> None:
    bench = AskedLeases(directory, Policy())
    request = replace(
        bench.request(1), spec=SpecReference("file", "one.json"), document_is_vouched_for=False
    )
    claim = await bench.leases._claims.examine(request)
    assert claim.record.spec_source == "file"
    assert claim.record.accounts == ("WebApp01",)
    await bench.close()


async def test_an_account_that_came_along_is_kept_for_the_lease_only(directory: Path) -> None:
    bench = AskedLeases(directory, Policy())
    account = HostAccount("example.test", "reader", "hunter2")
    request = replace(bench.request(1), host_account=account)
    claim = await bench.leases._claims.examine(request)
    assert isinstance(claim.source, GivenAccount)
    assert claim.source.account.password == ""
    assert claim.record.host_source == {}
    assert claim.source.revealed() == account
    assert "hunter2" not in repr(claim) + repr(request)
    bench.leases._table.secrets.drop(request.lease_id)
    with pytest.raises(CredspecError, match="host-account-forgotten"):
        claim.source.revealed()
    await bench.close()


WITH_INLINE = Providers(ProviderSettings(enabled=("inline",)))


async def test_what_a_spec_has_for_a_foreign_provider_may_be_a_secret(directory: Path) -> None:
    """It is kept in memory, for as long as the lease."""
    bench = AskedLeases(directory, Policy(), providers=WITH_INLINE)
    request = replace(bench.request(1), spec=INLINE)
    claim = await bench.leases._claims.examine(request)
    assert isinstance(claim.source, PluginSource)
    assert (claim.source.plugin_input, claim.source.input) == ("", "example.test:reader:hunter2")
    assert claim.record.host_source == {"guid": claim.source.guid}
    assert "hunter2" not in repr(claim)
    await bench.close()


async def test_an_account_of_another_domain_in_a_spec_is_refused_before_it_logs_on(
    directory: Path,
) -> None:
    bench = AskedLeases(directory, Policy(), providers=WITH_INLINE)
    guid = "{11111111-2222-3333-4444-555555555555}"
    other = with_plugin(guid, "other.test:reader:hunter2")
    with pytest.raises(CredspecError, match="host-account-other-domain") as caught:
        await bench.leases.make(replace(bench.request(1), spec=other))
    assert caught.value.step is Step.HOST_LOGON
    assert bench.session.asked == 0
    assert_untouched(bench)
    await bench.close()


async def test_a_user_claims_only_what_is_its_own(directory: Path) -> None:
    bench = AskedLeases(directory, Policy(uids=frozenset({USER}), leases_per_user=1))
    claims = bench.leases._claims
    request = replace(bench.request(1, uid=USER), place=None)
    with pytest.raises(CredspecError, match="owner-not-permitted"):
        await claims.of_caller(request)
    other = replace(request, uid=USER, gid=USER, runtime_state="/run/runc/x")
    with pytest.raises(CredspecError, match=r"runtime-state-not-permitted|owner-not-permitted"):
        await claims.of_caller(other)
    await bench.leases.make(bench.request(1))
    with pytest.raises(CredspecError, match="lease-not-yours"):
        await claims.of_caller(request)
    assert await claims.of_caller(replace(request, caller=Caller(0, 1))) is not None
    await bench.close()


async def test_the_number_of_leases_is_looked_at_once_more_at_the_end(directory: Path) -> None:
    """Others may have been made while the domain was asked."""
    bench = AskedLeases(directory, Policy(grpc_uids=frozenset({USER}), leases_per_user=1))
    request = bench.request(1, uid=USER)
    first = await bench.leases.make(bench.request(2, uid=USER))
    with pytest.raises(TooManyRequestsError, match="leases-too-many"):
        await bench.leases._claims.examine(request)
    await bench.leases.release(first.lease_id)
    assert (await bench.leases._claims.examine(request)).record.user == USER
    await bench.close()


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_a_malformed_one_that_shows_nothing(text: str) -> None:
    found = requested_spec(f"{text}hunter2")
    if isinstance(found, MalformedReference):
        assert found.problems[0].code in {"spec-reference-invalid", "spec-reference-registry"}
        assert "hunter2" not in repr(found)
    else:
        assert found.value.endswith("hunter2")
