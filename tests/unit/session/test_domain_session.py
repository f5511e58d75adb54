"""When a session of a domain connects, logs on and reads again; the domain is simulated.

What it asks of controllers is recorded by name, in the order in which it is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from credspec.directory.accounts import GroupManagedServiceAccount, PasswordNotPermittedError
from credspec.directory.connection import Connection, Transport
from credspec.directory.domain import DomainFacts
from credspec.directory.locator import DomainController
from credspec.directory.managed_password import ManagedPassword
from credspec.errors import (
    CredspecError,
    NotFoundError,
    NotPermittedError,
    PermanentFaultError,
    UnreachableError,
)
from credspec.kerberos.kdc_errors import KdcUnreachableError, PolicyRefusedError
from credspec.kerberos.tickets import Ticket
from credspec.session import account_tickets, domain_connection, domain_session, password_reader
from credspec.session.domain_session import DomainSession

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
FACTS = DomainFacts(
    dns_name="example.test",
    netbios_name="EXAMPLE",
    forest="example.test",
    sid="S-1-5-21-1-2-3",
    guid="244818ae-87ca-4fcd-92ec-e79e5252348a",
    naming_context="DC=example,DC=test",
    configuration_naming_context="CN=Configuration,DC=example,DC=test",
)
ACCOUNT = GroupManagedServiceAccount(
    "CN=WebApp01,DC=example,DC=test", "WebApp01$", "S-1-5-21-1-2-3-4", True, True, (), ()
)
PASSWORD = ManagedPassword(b"p" * 256, None, 20 * HOUR, 10 * HOUR)
CONTROLLERS = [
    DomainController("dc1.example.test", ("192.0.2.1",)),
    DomainController("dc2.example.test", ("192.0.2.2", "192.0.2.3"), site="Here", is_closest=True),
]


def ticket(*, start: datetime = NOW - HOUR, end: datetime = NOW + 9 * HOUR) -> Ticket:
    return Ticket("HOST$@EXAMPLE.TEST", start, end, 18, b"")


def unreachable() -> CredspecError:
    return UnreachableError.of("dc-unreachable", "simulated")


def logon_refused() -> CredspecError:
    return CredspecError.of("logon-refused", "simulated")


def not_permitted() -> CredspecError:
    return PasswordNotPermittedError.of("password-not-permitted", "simulated")


class SimulatedConnection:
    def __init__(self, domain: Domain, host: str) -> None:
        self._domain, self.host = domain, host

    def close(self) -> None:
        self._domain.did.append(f"close {self.host[:3]}")

    def overwrite_last_answer(self) -> Callable[[], None]:
        self._domain.did.append("ask for another")
        self._domain.raise_next("overwrite")

        def finish() -> None:
            self._domain.did.append("overwritten")

        return finish


class SimulatedIdentity:
    cache: str | None = "MEMORY:host"
    is_provided = False
    has_tgt = False
    guess = ""
    domain = "example.test"

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.new = ticket()
        self._held: dict[str, Ticket] = {}

    def get_service_ticket(self, service: str) -> Ticket:
        return self._held.setdefault(service, replace(self.new))

    def log_on(self) -> Ticket:
        self._domain.did.append("tgt")
        return self.new

    def forget(self) -> None:
        self._domain.did.append("forget")
        self._held.clear()

    def close(self) -> None:
        self._domain.did.append("close identity")


class Domain:
    """All that a session touches. `next` has the errors to come, by what they are errors of."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.seconds: list[float] = []
        self.next: dict[str, list[CredspecError | None]] = {}
        self.now = NOW
        self.located: list[tuple[str, str | None]] = []
        self.controllers = CONTROLLERS
        self.kdcs: dict[str, list[str]] = {}
        self.realms: set[str] = set()
        self.versions = [5]
        self.salt: str | None = None
        self.asked_with: list[tuple[tuple[Any, ...], str | None]] = []
        self.taking = {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
        self.trusted: str | None = "other.test"
        self.identity = SimulatedIdentity(self)
        self.session = DomainSession(
            "Example.test",
            host_identity=self.identity,  # type: ignore[arg-type]
            locator=self,  # type: ignore[arg-type]
            transport=Transport.LDAP,
            ca_file=None,
            krb5_conf=self,  # type: ignore[arg-type]
            now=lambda: self.now,
        )

    def raise_next(self, what: str) -> None:
        errors = self.next.get(what)
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error

    def read(self) -> None:
        with self.session.passwords.overwriting():
            self.session.passwords.read("WebApp01")

    def failing(self, what: str, *errors: CredspecError | None) -> None:
        self.next[what] = list(errors)

    # As the locator and the krb5.conf.

    def locate(
        self, domain: str, *, port: int = 88, site: str | None = None
    ) -> list[DomainController]:
        self.did.append("locate" if domain == "example.test" else f"locate {domain}")
        self.located.append((domain, site))
        if domain != "example.test":
            return [DomainController("dc.home.test", ("192.0.2.9",))]
        assert port == Transport.LDAP.port
        return self.controllers

    def set_kdcs(self, realm: str, addresses: list[str]) -> None:
        self.kdcs[realm] = addresses

    # As the functions of other modules.

    def open(
        self,
        controller: DomainController,
        _: Transport,
        *,
        ca_file: Path | None,
        ccache: str,
        seconds: float,
    ) -> SimulatedConnection:
        assert (ca_file, ccache) == (None, self.identity.cache)
        self.seconds.append(seconds)
        self.did.append(f"open {controller.host[:3]}")
        self.raise_next(controller.host[:3])
        return SimulatedConnection(self, controller.host)

    def facts(self, _: SimulatedConnection, domain: str) -> DomainFacts:
        assert domain == "example.test"
        self.raise_next("facts")
        return replace(FACTS)

    def read_password(
        self, _: object, __: DomainFacts, account: str, *, reader: str
    ) -> tuple[GroupManagedServiceAccount, ManagedPassword]:
        self.did.append(f"read {account}{reader and ' as '}{reader}")
        self.raise_next("read")
        return ACCOUNT, PASSWORD

    def version(self, *_: object) -> int:
        return self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]

    def trusted_domain(self, *_: object) -> str | None:
        self.did.append("trusts")
        self.raise_next("trusts")
        return self.trusted

    def account_ticket(self, *arguments: Any, armor: str | None) -> Ticket:
        self.did.append("kdc" if armor is None else "armoured kdc")
        self.asked_with.append((arguments, armor))
        self.raise_next("kdc")
        found = Ticket("WebApp01$@EXAMPLE.TEST", NOW, NOW + 10 * HOUR, 18, b"account's")
        return replace(found, salt=self.salt)

    def keytab(self, *arguments: Any, made: datetime, salts: object) -> bytes:
        self.did.append("keytab")
        assert made == self.now
        return repr((arguments[3], salts)).encode()


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    found = Domain()
    for module, functions in {
        domain_connection: {
            "read_domain_facts": found.facts,
            "realms_of_service": lambda *_: found.realms,
            "answers": lambda address, port: port == 88 and address in found.taking,
        },
        password_reader: {
            "read_managed_password": found.read_password,
            "find_account": lambda *_: ACCOUNT,
            "read_key_version": found.version,
        },
        account_tickets: {"ticket_from_managed_password": found.account_ticket},
        domain_session: {
            "find_account": lambda *_: ACCOUNT,
            "read_trusted_domain": found.trusted_domain,
            "account_keytab": found.keytab,
        },
    }.items():
        for name, function in functions.items():
            monkeypatch.setattr(module, name, function)
    monkeypatch.setattr(Connection, "open", found.open)
    yield found
    assert found.session.passwords._at_work == 0
    assert found.session.connection._lock.acquire(blocking=False)


def test_the_first_controller_that_takes_the_logon_is_used_simulated(domain: Domain) -> None:
    domain.failing("dc1", unreachable())
    assert domain.session.domain == "example.test"
    assert domain.session.known_facts is None
    assert domain.session.facts() == FACTS
    assert domain.did == ["locate", "open dc1", "open dc2"]
    assert domain.session.controller == CONTROLLERS[1]
    assert domain.kdcs == {"EXAMPLE.TEST": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}
    assert domain.session.facts() is domain.session.known_facts
    assert len(domain.did) == 3


@pytest.mark.parametrize(
    ("silent", "seconds"),
    [
        ([False, False], [10.0, 10.0]),
        ([True, False], [3.0, 10.0]),
        ([False, True], [10.0, 10.0]),
        ([True, True], [3.0, 10.0]),
    ],
)
def test_a_silent_controller_has_less_time_while_there_is_another_simulated(
    domain: Domain, silent: list[bool], seconds: list[float]
) -> None:
    pairs = zip(CONTROLLERS, silent, strict=True)
    domain.controllers = [replace(dc, is_silent=is_silent) for dc, is_silent in pairs]
    domain.failing("dc1", unreachable())
    assert domain.session.facts() == FACTS
    assert domain.seconds == seconds


def test_the_connection_is_held_and_the_logon_is_made_again_in_time_simulated(
    domain: Domain,
) -> None:
    domain.identity.new = ticket(end=NOW + HOUR)
    domain.session.find("WebApp01")
    domain.now = NOW + HOUR - 61 * SECOND
    domain.session.find("WebApp01")
    assert domain.did == ["locate", "open dc1"]
    domain.now += 2 * SECOND
    domain.identity._held.clear()
    domain.identity.new = ticket(end=NOW + 5 * HOUR)
    domain.session.find("WebApp01")
    assert domain.did[2:] == ["close dc1", "locate", "open dc1"]
    # Where the controllers of this host's site were is where it looks first.
    assert domain.located == [("example.test", None), ("example.test", "Here")]


def malformed() -> CredspecError:
    return PermanentFaultError.of("managed-password-malformed", "simulated")


@pytest.mark.parametrize("error", [unreachable, logon_refused, malformed])
def test_a_held_connection_that_fails_is_made_again_once_simulated(
    domain: Domain, error: Callable[[], CredspecError]
) -> None:
    domain.session.facts()
    domain.did.clear()
    domain.failing("read", error())
    domain.read()
    assert domain.did[:5] == ["read WebApp01", "close dc1", "locate", "open dc1", "read WebApp01"]
    domain.failing("read", error(), error())
    with pytest.raises(type(error())):
        domain.read()


def test_a_new_connection_that_fails_is_not_made_again_simulated(domain: Domain) -> None:
    domain.failing("read", unreachable())
    with pytest.raises(UnreachableError):
        domain.read()
    assert domain.did == ["locate", "open dc1", "read WebApp01", "close dc1"]
    assert domain.session.controller is None


def test_what_the_directory_answers_is_its_answer_simulated(domain: Domain) -> None:
    domain.session.facts()
    domain.did.clear()
    domain.failing("read", NotFoundError.of("account-not-found", "simulated"))
    with pytest.raises(NotFoundError):
        domain.read()
    assert domain.did == ["read WebApp01", "ask for another", "overwritten"]


def test_a_held_ticket_that_is_refused_is_replaced_once_simulated(domain: Domain) -> None:
    """Groups or keys may have changed since it was made."""
    domain.session.facts()
    domain.session.connection._drop_connection()
    domain.did.clear()
    domain.failing("dc1", logon_refused())
    domain.failing("dc2", logon_refused())
    domain.session.find("WebApp01")
    assert domain.did == ["locate", "open dc1", "open dc2", "forget", "open dc1"]
    domain.session.connection._drop_connection()
    domain.did.clear()
    domain.failing("dc1", logon_refused(), logon_refused())
    domain.failing("dc2", unreachable(), unreachable())
    with pytest.raises(CredspecError, match="logon-refused"):
        domain.session.find("WebApp01")
    assert domain.did.count("forget") == 2


@pytest.mark.parametrize(("error", "held"), [(logon_refused, False), (unreachable, True)])
def test_a_new_ticket_or_one_that_nobody_saw_is_not_replaced_simulated(
    domain: Domain, error: Callable[[], CredspecError], *, held: bool
) -> None:
    if held:
        domain.session.facts()
        domain.session.connection._drop_connection()
        domain.did.clear()
    domain.identity.guess = "HOST$ was guessed"
    domain.failing("dc1", error())
    domain.failing("dc2", error())
    with pytest.raises(CredspecError) as caught:
        domain.session.find("WebApp01")
    assert caught.value.code == error().code
    assert "HOST$ was guessed" in caught.value.problems[0].remedy
    assert domain.did == ["locate", "open dc1", "open dc2", "forget"]


def test_a_controller_of_another_realm_gets_no_question_simulated(domain: Domain) -> None:
    domain.realms = {"EVIL.TEST"}
    with pytest.raises(NotPermittedError, match="domain-controller-other-realm"):
        domain.read()
    assert domain.did == ["locate", "open dc1", "close dc1", "open dc2", "close dc2", "forget"]
    assert domain.session.known_facts is None
    domain.realms = {"EVIL.TEST", "EXAMPLE.TEST"}
    assert domain.session.facts() == FACTS


@pytest.mark.parametrize(
    ("age", "again"), [(HOUR, True), (61 * SECOND, True), (59 * SECOND, False), (-2 * MINUTE, True)]
)
def test_groups_that_changed_after_the_logon_count_with_a_new_one_simulated(
    domain: Domain, age: timedelta, *, again: bool
) -> None:
    """Also if the clock was set back since, and the ticket is one of the future."""
    domain.identity.new = ticket(start=NOW - age)
    domain.identity.guess = "HOST$ was guessed"
    domain.failing("read", not_permitted())
    if again:
        domain.read()
        assert domain.did[2:7] == ["read WebApp01", "forget", "close dc1", "locate", "open dc1"]
        domain.failing("read", not_permitted(), not_permitted())
    with pytest.raises(PasswordNotPermittedError) as caught:
        domain.read()
    assert "HOST$ was guessed" in caught.value.problems[0].remedy
    assert domain.did.count("forget") == (2 if again else 0)


def test_a_refusal_that_is_not_the_logons_is_not_asked_again_simulated(domain: Domain) -> None:
    domain.failing("read", NotPermittedError.of("account-disabled", "simulated"))
    with pytest.raises(NotPermittedError, match="account-disabled"):
        domain.read()
    assert "forget" not in domain.did


def test_an_acquisition_says_when_to_ask_again_and_leaves_no_password_simulated(
    domain: Domain,
) -> None:
    acquired = domain.session.acquire("WebApp01")
    assert acquired.account_name == "WebApp01$"
    assert acquired.password_due == NOW + 20 * HOUR
    assert (acquired.keytab, acquired.keytab_due) == (None, None)
    assert acquired.ticket.ccache == b"account's"
    # The domain answers while the key is derived.
    assert domain.did[2:] == ["read WebApp01", "ask for another", "kdc", "overwritten"]
    (arguments, armor) = domain.asked_with[0]
    assert arguments == ("WebApp01$", "EXAMPLE.TEST", PASSWORD)
    assert armor is None


def test_a_password_that_cannot_be_overwritten_goes_with_the_connection_simulated(
    domain: Domain,
) -> None:
    domain.session.facts()
    domain.session.passwords._at_work = 1  # another thread has one at hand
    domain.read()
    assert domain.did[2:] == ["read WebApp01"]
    domain.session.passwords._at_work = 0
    domain.failing("overwrite", unreachable())
    domain.session.connection.overwrite_now()
    assert domain.did[3:] == ["ask for another", "close dc1"]
    assert domain.session.connection._connection is None


def test_the_salt_that_the_kdc_took_is_tried_first_the_next_time_simulated(domain: Domain) -> None:
    domain.salt = "EXAMPLE.TESThostwebapp01.example.test"
    for _ in range(2):
        domain.session.acquire("WebApp01")
    (first, _), (second, _) = domain.asked_with
    assert second == (*first, domain.salt)


def test_a_keytab_is_of_the_password_with_its_version_simulated(domain: Domain) -> None:
    domain.salt = "salt"
    domain.versions = [5, 6, 6]  # a rollover while the password was read
    acquired = domain.session.acquire_with_keytab("WebApp01")
    assert acquired.keytab == repr((6, {6: "salt"})).encode()
    assert acquired.password_due == NOW + 20 * HOUR
    assert acquired.keytab_due == NOW + 10 * HOUR
    assert domain.did.count("read WebApp01") == 2
    assert domain.did[-1] == "overwritten"


def test_a_version_that_never_stays_is_refused_simulated(domain: Domain) -> None:
    domain.versions = [1, 2, 3, 4, 5]
    with pytest.raises(CredspecError, match="key-version-unstable"):
        domain.session.acquire_with_keytab("WebApp01")
    assert domain.did.count("read WebApp01") == 3
    assert "kdc" not in domain.did


def test_a_keytab_is_not_made_again_at_once_simulated(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = replace(PASSWORD, unchanged_interval=timedelta(0))
    monkeypatch.setattr(password_reader, "read_managed_password", lambda *_, **__: (ACCOUNT, soon))
    assert domain.session.acquire_with_keytab("WebApp01").keytab_due == NOW + MINUTE


def test_a_kdc_that_is_gone_is_looked_for_once_simulated(domain: Domain) -> None:
    domain.session.facts()
    domain.did.clear()
    domain.failing("kdc", KdcUnreachableError.of("kdc-unreachable", "simulated"))
    assert domain.session.acquire("WebApp01").ticket.ccache == b"account's"
    assert domain.did.count("locate") == domain.did.count("open dc1") == 1
    assert domain.did.count("kdc") == 2


@pytest.mark.parametrize(
    ("taking", "words"),
    [((), "check that the domain controllers run"), (("192.0.2.2",), "network path is open")],
)
@pytest.mark.parametrize("held", [True, False])
def test_an_error_of_the_kdc_says_whether_it_takes_connections_simulated(
    domain: Domain, taking: tuple[str, ...], words: str, *, held: bool
) -> None:
    if held:
        domain.session.facts()
    domain.taking = set(taking)
    domain.failing("kdc", *[KdcUnreachableError.of("kdc-unreachable", "no answer")] * 2)
    with pytest.raises(KdcUnreachableError) as caught:
        domain.session.acquire("WebApp01")
    (problem,) = caught.value.problems
    count = f"{len(taking)} of 3 addresses take connections on port 88 now"
    assert problem.found == f"no answer; {count}"
    assert words in problem.remedy
    assert domain.did.count("kdc") == (2 if held else 1)


def test_another_outage_stays_as_it_is_simulated(domain: Domain) -> None:
    domain.failing("kdc", unreachable())
    with pytest.raises(UnreachableError) as caught:
        domain.session.acquire("WebApp01")
    assert caught.value.problems[0].found == "simulated"


def test_a_policy_of_the_domain_is_met_with_armour_from_then_on_simulated(domain: Domain) -> None:
    domain.failing("kdc", PolicyRefusedError.of("kdc-policy", "simulated"))
    domain.session.acquire("WebApp01")
    assert [step for step in domain.did if "kdc" in step or step == "tgt"] == [
        *("kdc", "tgt", "armoured kdc")
    ]
    assert domain.asked_with[-1][1] == "MEMORY:host"
    domain.did.clear()
    domain.session.acquire("WebApp01")
    assert [step for step in domain.did if "kdc" in step or step == "tgt"] == [
        *("tgt", "armoured kdc")
    ]


def test_a_host_with_a_tgt_shows_it_and_a_refusal_is_final_simulated(domain: Domain) -> None:
    domain.identity.has_tgt = True
    domain.session.acquire("WebApp01")
    assert domain.asked_with[-1][1] == "MEMORY:host"
    domain.failing("kdc", PolicyRefusedError.of("kdc-policy", "simulated"))
    with pytest.raises(PolicyRefusedError):
        domain.session.acquire("WebApp01")
    assert "tgt" not in domain.did


def test_another_reader_than_the_host_is_named_simulated(domain: Domain) -> None:
    domain.identity.is_provided = True
    domain.read()
    assert "read WebApp01 as HOST$@EXAMPLE.TEST" in domain.did


def test_the_path_to_another_domain_leads_through_the_hosts_own_simulated(domain: Domain) -> None:
    domain.identity.domain = "home.test"
    domain.session.facts()
    assert domain.did == ["locate", "locate home.test", "open dc1"]
    assert domain.kdcs["HOME.TEST"] == ["192.0.2.9"]


def test_names_of_domains_simulated(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(domain_session.time, "monotonic", lambda: clock[0])
    session = domain.session
    assert session.domain_named("Other.Test").lower() == "other.test"
    assert domain.did == [], "a DNS name needs no question"
    assert session.domain_named("example") == "example.test"
    assert session.domain_named("OTHER") == session.domain_named("other") == "other.test"
    assert domain.did.count("trusts") == 1
    clock[0] += 599
    domain.trusted = "another.test"
    assert session.domain_named("other") == "other.test"
    clock[0] += 2
    assert session.domain_named("other") == "another.test"
    assert domain.did.count("trusts") == 2
    # What was known helps while the domain does not answer.
    clock[0] += 601
    domain.failing("trusts", unreachable(), unreachable())
    assert session.domain_named("other") == "another.test"
    domain.failing("trusts", unreachable(), unreachable())
    with pytest.raises(UnreachableError):
        session.domain_named("third")
    domain.trusted = None
    with pytest.raises(NotFoundError, match="domain-not-trusted"):
        session.domain_named("third")


def test_facts_are_read_again_only_if_that_is_wanted_simulated(domain: Domain) -> None:
    first = domain.session.facts()
    again = domain.session.read_facts()
    assert again == first
    assert again is domain.session.known_facts is not first


def test_controllers_that_take_connections_are_kept_simulated(domain: Domain) -> None:
    session = domain.session
    everywhere = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert session.follow_controllers() == everywhere
    assert session.follow_controllers() == everywhere
    assert domain.did == ["locate"]
    domain.taking = {"192.0.2.3"}
    assert session.follow_controllers() == ("192.0.2.3",)
    assert domain.located[-1] == ("example.test", "Here")
    assert [dc.host for dc in session.controllers] == ["dc2.example.test"]
    assert domain.kdcs["EXAMPLE.TEST"] == ["192.0.2.3"]
    # The port may be one that only this host cannot reach.
    domain.taking = set()
    assert session.follow_controllers() == everywhere


def test_an_end_waits_for_nobody_simulated(domain: Domain) -> None:
    domain.session.facts()
    domain.did.clear()
    with domain.session.connection._lock:
        closing = threading.Thread(target=domain.session.close)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
        assert domain.did == []
    domain.session.close()
    assert domain.did == ["close dc1", "close identity"]
    assert domain.session.connection._connection is None


def test_who_reads_is_named_if_it_is_not_the_host_itself(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host's identity need not say that nobody provided it."""
    connection = domain.session.passwords._connection
    assert connection.reader == ""
    monkeypatch.delattr(SimulatedIdentity, "is_provided")
    domain.read()
    assert connection.reader == ""
    monkeypatch.setattr(SimulatedIdentity, "is_provided", True, raising=False)
    assert connection.reader == "HOST$@EXAMPLE.TEST"


def test_how_long_a_controller_took_is_known_while_it_is_in_use(domain: Domain) -> None:
    assert domain.session.latency is None
    domain.read()
    assert domain.session.latency is not None
    assert domain.session.latency >= 0
