"""What a key distribution center that is simulated gets to see of a host account's password."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import krb5
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.kdc_errors import KeyRefusedError, LogonRefusedError
from credspec.kerberos.tickets import (
    Ticket,
    salt_of_kdc,
    ticket_from_keytab,
    ticket_from_password,
)
from credspec.providers.account_domains import AccountDomains
from credspec.providers.kept_secrets import KeptSecrets
from credspec.providers.provider import GivenAccount, HostAccount, HostSource, PluginSource
from credspec.providers.selection import Providers
from credspec.providers.settings import ProviderSettings
from credspec.session import provided_identity
from credspec.session.provided_identity import ProvidedIdentity, domain_of
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from support.domain.simulated_kdc import SimulatedKdc

RC4, AES128, AES256 = 23, 17, 18
PASSWORD = "Very-Secret-1!"
DOMAINS = AccountDomains(MappingProxyType({"example": "example.test"}))


@pytest.fixture
def kdc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedKdc]:
    """The only KDC of both realms."""
    with SimulatedKdc("EVIL.TEST") as found:
        address = f"127.0.0.1:{found.port}"
        realms = "".join(
            f" {realm} = {{\n  kdc = {address}\n  master_kdc = {address}\n }}\n"
            for realm in ("EVIL.TEST", "EXAMPLE.TEST")
        )
        conf = tmp_path / "krb5.conf"
        conf.write_text(
            f"[libdefaults]\n dns_lookup_kdc = false\n udp_preference_limit = 1\n[realms]\n{realms}"
        )
        monkeypatch.setenv("KRB5_CONFIG", str(conf))
        yield found


def providers_of(
    tmp_path: Path, domain: str, domains: AccountDomains, realm: str = ""
) -> Providers:
    accounts = tmp_path / "accounts"
    accounts.mkdir(mode=0o700)
    content = {"username": "reader", "password": PASSWORD, "domainName": domain}
    (accounts / "reader").write_text(json.dumps(content))
    (accounts / "reader").chmod(0o600)
    (accounts / "keytab").write_bytes(keytab_of(f"reader@{(realm or domain).upper()}", AES256))
    (accounts / "keytab").chmod(0o600)
    directory = {"directory": str(accounts)}
    return Providers(
        ProviderSettings(
            enabled=("file", "keytab"),
            domains=domains,
            tables={"file": directory, "keytab": directory},
        )
    )


def keytab_of(principal: str, *enctypes: int) -> bytes:
    context = krb5.init_context()
    name = krb5.parse_name_flags(context, principal.encode())
    parts = principal.partition("@")
    found = b"\x05\x02"
    for enctype in enctypes:
        key = krb5.c_string_to_key(context, enctype, b"x", b"salt").data
        entry = (1).to_bytes(2, "big")
        for text in (parts[2], parts[0]):
            entry += len(text).to_bytes(2, "big") + text.encode()
        entry += (1).to_bytes(4, "big") + bytes(4) + b"\x01"
        entry += enctype.to_bytes(2, "big") + len(key).to_bytes(2, "big") + key
        found += len(entry).to_bytes(4, "big") + entry
    assert name
    return found


SOURCES: list[HostSource] = [
    PluginSource(CREDSPEC_PLUGIN_GUID, "file:reader", "evil.test"),
    PluginSource(CREDSPEC_PLUGIN_GUID, "keytab:keytab", "evil.test"),
    # The account of the configuration, for a spec that names another domain.
    PluginSource(CREDSPEC_PLUGIN_GUID, "file:reader"),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("domain", "domains"),
    [
        ("EXAMPLE", DOMAINS),
        ("EXAMPLE", AccountDomains()),
        ("example.test", DOMAINS),
        ("example.test", AccountDomains()),
    ],
)
def test_a_simulated_hostile_domain_gets_nothing_made_of_a_password(
    kdc: SimulatedKdc, tmp_path: Path, source: HostSource, domain: str, domains: AccountDomains
) -> None:
    kdc.offers = [(RC4, "", None)]
    providers = providers_of(tmp_path, domain, domains)
    identity = ProvidedIdentity(source, "evil.test", providers)
    for ask in (identity.log_on, lambda: identity.get_service_ticket("ldap/dc1.evil.test")):
        with pytest.raises(NotPermittedError, match="host-account-other-domain"):
            ask()
    assert kdc.asked == []
    identity.close()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("domain", "home"),
    [("evil.test", "evil.test"), ("EVIL", "evil.test")],
)
def test_its_own_domain_gets_a_timestamp_of_aes(
    kdc: SimulatedKdc, tmp_path: Path, source: HostSource, domain: str, home: str
) -> None:
    """So the test above could fail."""
    domains = AccountDomains(MappingProxyType({"evil": home}))
    identity = ProvidedIdentity(source, home, providers_of(tmp_path, domain, domains, home))
    with pytest.raises(CredspecError):
        identity.log_on()
    assert kdc.timestamps
    assert {request.enctypes for request in kdc.asked} <= {(AES256, AES128), (AES256,)}
    identity.close()


def test_an_account_of_a_request_for_another_domain_is_not_sent(kdc: SimulatedKdc) -> None:
    source = GivenAccount(HostAccount("example.test", "reader", PASSWORD), "evil.test")
    with pytest.raises(NotPermittedError, match="host-account-other-domain"):
        ProvidedIdentity(source, "evil.test", Providers()).log_on()
    assert kdc.asked == []


def iterations(number: int) -> bytes:
    return number.to_bytes(4, "big")


@pytest.mark.parametrize(
    "offers",
    [
        [(RC4, "", None)],
        [(RC4, "", None), (3, "", None), (1, "", None)],
        [(AES256, "salt", iterations(1))],
        [(AES256, "salt", iterations(4095))],
        [(AES128, "salt", iterations(1))],
        [(AES256, "salt", iterations(0))],
        [(AES256, "salt", iterations(2**20 + 1))],
        [(AES256, "salt", iterations(2**32 - 1))],
        [(AES256, "salt", b"\x00\x10\x00")],
        [(AES256, "salt", bytes(4096))],
        [(RC4, "", None), (AES128, "salt", iterations(1000))],
        [],
    ],
)
@pytest.mark.parametrize("service", [None, "ldap/dc1.evil.test"])
def test_a_simulated_kdc_that_asks_for_weak_keys_gets_none(
    kdc: SimulatedKdc, offers: list[tuple[int, str, bytes | None]], service: str | None
) -> None:
    kdc.offers = offers
    with pytest.raises(NotPermittedError, match="kdc-enctype-weak") as caught:
        ticket_from_password(
            "reader@EVIL.TEST", PASSWORD, into_cache="MEMORY:weak", service=service
        )
    assert "AES" in str(caught.value)
    assert kdc.asked
    assert kdc.timestamps == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-150, 30),
            st.text("abcXYZ", max_size=8),
            st.none() | st.binary(max_size=6) | st.integers(0, 2**32 - 1).map(iterations),
        ),
        max_size=4,
    )
)
def test_whatever_a_simulated_kdc_offers_nothing_weak_is_sent(
    kdc: SimulatedKdc, offers: list[tuple[int, str, bytes | None]]
) -> None:
    kdc.offers = offers
    kdc.asked.clear()
    with pytest.raises(CredspecError):
        ticket_from_password("reader@EVIL.TEST", PASSWORD, into_cache="MEMORY:weak")
    assert all(set(request.enctypes) <= {AES256, AES128} for request in kdc.asked)
    offered = {enctype: params or iterations(4096) for enctype, _, params in reversed(offers)}
    strong = [
        enctype
        for enctype in (AES256, AES128)
        if len(found := offered.get(enctype, b"")) == 4
        and 4096 <= int.from_bytes(found, "big") <= 2**20
    ]
    if not strong:
        assert kdc.timestamps == []


def test_keys_of_a_keytab_are_used_with_aes_only(kdc: SimulatedKdc, tmp_path: Path) -> None:
    keytab = tmp_path / "rc4.keytab"
    keytab.write_bytes(keytab_of("reader@EVIL.TEST", RC4))
    with pytest.raises(NotPermittedError, match=r"arcfour-hmac.*aes256.*keytab-no-key"):
        ticket_from_keytab("reader@EVIL.TEST", keytab, enctypes=(AES256, AES128))
    assert kdc.asked == []
    keytab.write_bytes(keytab_of("reader@EVIL.TEST", RC4, AES256))
    kdc.offers = [(RC4, "", None)]
    with pytest.raises(CredspecError):
        ticket_from_keytab("reader@EVIL.TEST", keytab, enctypes=(AES256, AES128))
    assert all(set(request.enctypes) <= {AES256, AES128} for request in kdc.asked)


def test_a_password_that_is_refused_is_tried_once_until_it_is_another(
    kdc: SimulatedKdc, tmp_path: Path
) -> None:
    """Each try counts towards the lock of the account."""
    kdc.refuses = 24
    providers = providers_of(tmp_path, "evil.test", AccountDomains())
    source = PluginSource(CREDSPEC_PLUGIN_GUID, "file:reader", "evil.test")
    identity = ProvidedIdentity(source, "evil.test", providers)
    for ask in (identity.log_on, lambda: identity.get_service_ticket("ldap/dc1.evil.test")) * 2:
        with pytest.raises(LogonRefusedError, match="kdc-password-refused"):
            ask()
    assert len(kdc.timestamps) == 1
    content = json.loads((tmp_path / "accounts/reader").read_text())
    (tmp_path / "accounts/reader").write_text(json.dumps(content | {"password": "Another-1!"}))
    with pytest.raises(LogonRefusedError):
        identity.log_on()
    assert len(kdc.timestamps) == 2
    identity.close()


def test_a_key_that_is_refused_is_not_tried_again(kdc: SimulatedKdc, tmp_path: Path) -> None:
    keytab = tmp_path / "keytab"
    keytab.write_bytes(keytab_of("reader@EVIL.TEST", AES256))
    kdc.refuses = 24
    with pytest.raises(KeyRefusedError, match="kdc-key-refused"):
        ticket_from_keytab("reader@EVIL.TEST", keytab)
    assert len(kdc.timestamps) == 1


def test_a_kdc_that_knows_no_aes_is_named(kdc: SimulatedKdc) -> None:
    kdc.asks = 14
    with pytest.raises(NotPermittedError, match="kdc-enctype-weak"):
        ticket_from_password("reader@EVIL.TEST", PASSWORD, into_cache="MEMORY:weak")


def test_the_salt_that_a_kdc_tells(kdc: SimulatedKdc) -> None:
    kdc.offers = [(AES256, "EVIL.TESTreader", iterations(4096))]
    assert salt_of_kdc("reader@EVIL.TEST") == "EVIL.TESTreader"
    kdc.offers = [(AES256, "", None)]
    assert salt_of_kdc("reader@EVIL.TEST") is None
    assert kdc.timestamps == []


def test_an_account_is_kept_for_a_while_but_not_the_secret_of_a_lease(tmp_path: Path) -> None:
    providers = providers_of(tmp_path, "evil.test", AccountDomains())
    source = PluginSource(CREDSPEC_PLUGIN_GUID, "file:reader", "evil.test")
    identity = ProvidedIdentity(source, "evil.test", providers)
    account, is_new = identity._current_account()
    assert (account.user, is_new) == ("reader", True)
    assert identity._current_account() == (account, False)
    identity.close()
    assert identity._current_account() == (account, True)
    identity.close()
    lasting = ProvidedIdentity(
        source.concealed(lambda text: KeptSecrets().keep(text, "lease")), "evil.test", providers
    )
    assert [lasting._current_account() for _ in range(2)] == [(account, True)] * 2
    assert lasting._account is None
    lasting.close()


def test_tickets_of_another_account_are_not_added_to_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential cache is one principal's; what was forgotten is got again."""
    asked: list[tuple[str, str | None, bool]] = []

    def get(
        principal: str, _password: str, *, into_cache: str, add: bool, service: str | None
    ) -> Ticket:
        assert into_cache == identity.cache
        asked.append((principal, service, add))
        now = datetime.now(UTC)
        return Ticket(principal, now, now + timedelta(hours=10), AES256, b"")

    monkeypatch.setattr(provided_identity, "ticket_from_password", get)
    providers = providers_of(tmp_path, "evil.test", AccountDomains())
    source = PluginSource(CREDSPEC_PLUGIN_GUID, "file:reader", "evil.test")
    identity = ProvidedIdentity(source, "evil.test", providers)
    first, second = "ldap/dc1.evil.test", "ldap/dc2.evil.test"
    identity.get_service_ticket(first)
    identity.get_service_ticket(first)
    identity.get_service_ticket(second)
    content = json.loads((tmp_path / "accounts/reader").read_text())
    (tmp_path / "accounts/reader").write_text(json.dumps(content | {"username": "writer"}))
    identity._forget_account()  # as in time
    identity.get_service_ticket("ldap/dc3.evil.test")
    identity.get_service_ticket(first)
    identity.forget()
    identity.get_service_ticket(first)
    reader, writer = "reader@EVIL.TEST", "writer@EVIL.TEST"
    assert asked == [
        (reader, first, False),
        (reader, second, True),
        (writer, "ldap/dc3.evil.test", False),
        (writer, first, True),
        (writer, first, False),
    ]
    identity.close()


def test_the_domain_of_an_account_is_its_dns_name(tmp_path: Path) -> None:
    keytab = tmp_path / "keytab"
    keytab.write_bytes(keytab_of("reader@EXAMPLE.TEST", AES256))
    providers = Providers(ProviderSettings(domains=DOMAINS))
    for account in (
        HostAccount("EXAMPLE", "reader", PASSWORD),
        HostAccount("Example.Test", "reader", PASSWORD),
        HostAccount("", "", keytab=keytab),
    ):
        assert domain_of(account, providers, "here") == "example.test"


class SimulatedRealm:
    """A KDC that knows one password, a clock, and a provider's file; counts who was asked."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kept_seconds: float = 3600
    ) -> None:
        self.password = PASSWORD
        self.now = 1000.0
        self.tried: list[tuple[str, str, str | None, bool]] = []
        self.read = 0
        self._file = tmp_path / "accounts/reader"
        providers = providers_of(tmp_path, "evil.test", AccountDomains())
        given = dataclasses.replace(providers.settings, secret_seconds=kept_seconds)
        self.providers = Providers(given)
        account = self.providers.account

        def counted(source: HostSource) -> HostAccount:
            self.read += 1
            return account(source)

        monkeypatch.setattr(self.providers, "account", counted)
        monkeypatch.setattr(provided_identity, "ticket_from_password", self._exchange)
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(provided_identity, "time", clock)

    def write(self, user: str, password: str) -> None:
        """Have the provider say something else."""
        content = {"username": user, "password": password, "domainName": "evil.test"}
        self._file.write_text(json.dumps(content))

    def identity(self, source: HostSource = SOURCES[0]) -> ProvidedIdentity:
        return ProvidedIdentity(source, "evil.test", self.providers)

    def _exchange(
        self, principal: str, password: str, *, into_cache: str, add: bool, service: str | None
    ) -> Ticket:
        assert into_cache.startswith("MEMORY:credspec-provided-")
        self.tried.append((principal, password, service, add))
        if password != self.password:
            raise LogonRefusedError.of("kdc-key-refused", "wrong")
        now = datetime.now(UTC)
        return Ticket(principal, now, now + timedelta(hours=10), AES256, b"")


ONE, OTHER = "ldap/dc1.evil.test", "ldap/dc2.evil.test"


@pytest.fixture
def realm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedRealm:
    return SimulatedRealm(tmp_path, monkeypatch)


def test_a_provider_is_asked_for_each_ticket_if_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    realm = SimulatedRealm(tmp_path, monkeypatch, kept_seconds=0)
    identity = realm.identity()
    identity.get_service_ticket(ONE)
    identity.get_service_ticket(OTHER)
    assert realm.read == 2
    identity.close()


def test_a_password_that_was_changed_is_read_again_once(realm: SimulatedRealm) -> None:
    identity = realm.identity()
    identity.get_service_ticket(ONE)
    realm.password = "Another-Secret-2!"
    realm.write("reader", realm.password)
    identity.get_service_ticket(OTHER)
    assert [password for _, password, _, _ in realm.tried[1:]] == [PASSWORD, realm.password]
    identity.close()


def test_a_password_that_is_wrong_is_tried_once_a_minute(realm: SimulatedRealm) -> None:
    """So that it does not lock the account out."""
    realm.password = "Another-Secret-2!"
    identity = realm.identity()
    for seconds in (0, 1, 58.9):
        realm.now += seconds
        with pytest.raises(LogonRefusedError, match="wrong"):
            identity.log_on()
    assert len(realm.tried) == 1
    realm.now += 0.2
    with pytest.raises(LogonRefusedError, match="wrong"):
        identity.log_on()
    assert len(realm.tried) == 2
    # Another one is tried at once.
    realm.write("reader", realm.password)
    assert identity.log_on().principal == "reader@EVIL.TEST"
    identity.close()
