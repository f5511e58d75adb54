from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError, NotPermittedError, Problem
from credspec.providers.account_domains import AccountDomains, account_domains
from credspec.providers.provider import GivenAccount, HostAccount, PluginSource
from credspec.providers.selection import Providers, plugin_source
from credspec.providers.settings import ProviderSettings, provider_settings
from credspec.spec.document import CredentialSpec

SECRET = "Very-Secret-1!"
UNKNOWN = "{00000000-0000-0000-0000-00000000000a}"
MAPPED = AccountDomains(MappingProxyType({"example": "example.test", "other": "other.test"}))


def of(domain: str) -> HostAccount:
    return HostAccount(domain, "reader", SECRET)


@pytest.mark.parametrize("name", ["example.test", "EXAMPLE.Test", "example.test."])
def test_a_dns_name_in_the_secret_says_where_it_may_go(name: str) -> None:
    for domains in (AccountDomains(), MAPPED):
        domains.check(of(name), "example.test", "w")
        with pytest.raises(NotPermittedError, match=r"host-account-other-domain"):
            domains.check(of(name), "evil.test", "w")


def test_a_netbios_name_says_it_only_with_the_configuration() -> None:
    MAPPED.check(of("EXAMPLE"), "example.test", "w")
    MAPPED.check(of("Other"), "OTHER.test", "w")
    for domains, name, home in (
        (AccountDomains(), "EXAMPLE", "example.test"),
        (MAPPED, "THIRD", "example.test"),
        (MAPPED, "EXAMPLE", "other.test"),
        (MAPPED, "", "example.test"),
        # A name without a dot could be looked up below any search domain.
        (AccountDomains(), "example", "example"),
    ):
        with pytest.raises(NotPermittedError, match="host-account-other-domain") as caught:
            domains.check(of(name), home, "w")
        assert SECRET not in str(caught.value)
    with pytest.raises(NotPermittedError, match=r"domains = \{ THIRD = .*\[providers\]"):
        MAPPED.check(of("third"), "evil.test", "w")


def test_what_to_configure_is_never_what_the_document_says() -> None:
    with pytest.raises(NotPermittedError) as caught:
        AccountDomains().check(of("EXAMPLE"), "evil.test", "w")
    assert "evil" not in str(caught.value)


def test_configured_domains_are_the_only_ones() -> None:
    with pytest.raises(NotPermittedError, match=r"evil\.test.*example\.test or other\.test"):
        MAPPED.check(of("evil.test"), "evil.test", "w")


def test_a_domain_of_one_label_must_be_configured() -> None:
    AccountDomains(MappingProxyType({"corp": "corp"})).check(of("CORP"), "corp", "w")


@pytest.mark.parametrize(
    "value",
    [
        "example.test",
        ["example.test"],
        {"EXAMPLE": 1},
        {"EXAMPLE": ""},
        {"EXAMPLE": "a b"},
        {"EXAMPLE": "exämple.test"},
        {"EXAMPLE.TEST": "example.test"},
        {"": "example.test"},
        {"A" * 16: "example.test"},
        {"EXAMPLE": "example.test", "example": "other.test"},
    ],
)
def test_domains_of_the_configuration_that_are_none(value: Any) -> None:
    assert isinstance(account_domains(value, "w"), Problem)
    found = provider_settings({"domains": value}, "c")
    assert isinstance(found, list)
    assert [problem.where for problem in found] == ["c: providers.domains"]


def test_domains_of_the_configuration() -> None:
    found = provider_settings({"domains": {"EXAMPLE": "Example.Test."}}, "c")
    assert isinstance(found, ProviderSettings)
    assert found.domains == AccountDomains(MappingProxyType({"example": "example.test"}))
    assert provider_settings({"domains": {}}, "c") == ProviderSettings()


NAMES = st.sampled_from(
    [
        *("EXAMPLE", "example", "OTHER", "example.test", "EXAMPLE.TEST", "example.test.", "evil"),
        *("evil.test", "example.test.evil.test", "evilexample.test", "example.tes", "test"),
        *("ex\u212aample.test", "example\u3002test", "EXAMPLE.", "xn--example.test"),
        "example..test",
    ]
) | st.text("EXAMPLeximplet.-", min_size=1, max_size=16)
DNS_NAMES = st.sampled_from(["evil.test", "example.test", "other.test", "example", "evil"])
NETBIOS_NAMES = st.none() | st.text("EXAMPLOTHRevil-_$", min_size=1, max_size=15)


@given(NAMES, DNS_NAMES, NETBIOS_NAMES, st.booleans())
def test_no_document_decides_where_a_password_goes(
    secret: str, dns_name: str, netbios: str | None, mapped: bool
) -> None:
    """Whatever a document says of its domain, an account of another one is refused."""
    domains = MAPPED if mapped else AccountDomains()
    document: dict[str, Any] = {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {"DnsName": dns_name, "MachineAccountName": "web"},
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [{"Name": "web", "Scope": dns_name}],
            "HostAccountConfig": {"PluginGUID": UNKNOWN, "PluginInput": f"{secret}:reader:x"},
        },
    }
    if netbios is not None and netbios.strip("$"):
        document["DomainJoinConfig"]["NetBiosName"] = netbios
    spec = CredentialSpec.from_json(document)
    source = plugin_source(spec)
    assert source == PluginSource(UNKNOWN, f"{secret}:reader:x", dns_name)
    providers = Providers(ProviderSettings(enabled=("inline",), domains=domains))
    named = secret.lower().removesuffix(".")
    known = MAPPED.by_netbios_name
    may = named if "." in named else known.get(named) if mapped else None
    for each in (source, GivenAccount(of(secret), dns_name)):
        for ask in (providers.check, providers.account):
            try:
                ask(each)
            except CredspecError as error:
                assert error.code.startswith("host-account-")
            else:
                assert may == dns_name
