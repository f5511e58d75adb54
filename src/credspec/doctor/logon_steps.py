"""Steps on the host identity: what the host logs on with, its ticket, the sealed connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from credspec.directory.account_groups import read_account_key_version
from credspec.directory.connection import Connection
from credspec.directory.domain import read_domain_facts
from credspec.directory.encryption_types import encryption_type_problems, read_encryption_types
from credspec.doctor.step import Finding, Step
from credspec.errors import CredspecError, Problem, UnreachableError
from credspec.kerberos.keys import enctype_name
from credspec.kerberos.keytab_contents import keytab_enctypes, keytab_versions
from credspec.providers.selection import plugin_source
from credspec.session.host_identity import CallersTicket, MachineKeytab
from credspec.session.provided_identity import ProvidedIdentity
from credspec.spec.host_account_plugins import plugin_name

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination


def _identity(examination: Examination) -> Finding:
    identity = examination.identity
    if isinstance(identity, CallersTicket):
        text = f"your ticket of {identity.log_on().principal}, not the machine keytab"
    elif isinstance(identity, MachineKeytab):
        if examination.domain is not None:
            identity.prefer_domain(examination.domain)
        text = f"{identity.name} in {identity.keytab}"
        if identity.guess:
            text += f"; {identity.guess}"
    else:
        text = f"an account of {identity.domain}"
    if examination.domain is None:
        examination.domain = identity.domain
    return Finding(text)


def _logon(examination: Examination) -> Finding:
    addresses = [a for controller in examination.controllers for a in controller.addresses]
    # The KDCs asked are the controllers that took a connection; only for the identity's own realm.
    if examination.domain is not None:
        examination.krb5_conf.set_kdcs(examination.domain.upper(), addresses)
    ticket = examination.identity.log_on()
    examination.ticket = ticket
    return Finding(
        f"TGT of {ticket.principal}, {enctype_name(ticket.enctype)}, until "
        f"{ticket.end:%Y-%m-%d %H:%M} UTC"
    )


def _ldap(examination: Examination) -> Finding:
    config = examination.config
    failures: list[CredspecError] = []
    for controller in examination.controllers:
        try:
            connection = Connection.open(
                controller,
                config.transport,
                ca_file=config.ca_file,
                ccache=examination.identity.cache,
            )
            examination.connection = connection
            examination.facts = read_domain_facts(connection, examination.domain)
        except CredspecError as error:
            examination.close()
            failures.append(error)
            continue
        sealed = "sealed with 128 bits or more" if config.transport == "ldap" else "in TLS, bound"
        problems = tuple(problem for error in failures for problem in error.problems)
        return Finding(
            f"logged on at {controller.host}:{config.transport.port}, {sealed}", problems
        )
    if not failures:
        raise UnreachableError.of("dc-unreachable", "no domain controller", where="LDAP")
    raise failures[0]


def _keytab_version(examination: Examination) -> Finding:
    identity, connection, facts = examination.identity, examination.connection, examination.facts
    assert connection is not None  # noqa: S101 - narrows for the type checker
    assert facts is not None  # noqa: S101 - narrows for the type checker
    if not isinstance(identity, MachineKeytab):
        return Finding("no keytab is used")
    name, _, realm = identity.name.partition("@")
    if realm.lower() != facts.dns_name.lower():
        return Finding(f"not compared: {identity.name} is of another domain")
    in_keytab = keytab_versions(identity.keytab, identity.name)
    in_domain = read_account_key_version(connection, facts, name)
    text = f"kvno {max(in_keytab)} in keytab and directory"
    types = read_encryption_types(connection, facts, name)
    weak = encryption_type_problems(name, types, keytab_enctypes(identity.keytab, identity.name))
    if in_domain is None or in_domain in in_keytab:
        return Finding(text, weak)
    problem = Problem(
        code="host-keytab-version",
        where=f"host keytab {identity.keytab}",
        found=f"newest kvno {max(in_keytab)}",
        expected=f"kvno {in_domain}, as in the directory",
        remedy="the password is the same or the logon would have failed, but services that check "
        "the kvno refuse it: renew the keytab (adcli update, net ads keytab create)",
    )
    found = f"kvno {max(in_keytab)} in the keytab, {in_domain} in the directory"
    return Finding(found, (problem, *weak))


def _provider(examination: Examination) -> Finding:
    spec, providers = examination.spec, examination.providers
    assert spec is not None  # noqa: S101 - narrows for the type checker
    assert providers is not None  # noqa: S101 - narrows for the type checker
    source = plugin_source(spec)
    assert source is not None  # noqa: S101 - narrows for the type checker
    account = providers.account(source)
    identity = ProvidedIdentity(source, spec.domain, providers)
    identity.check(account)
    examination.identity = identity
    name = plugin_name(source.guid) or source.guid
    if account.keytab is not None:
        return Finding(f"{name} gave the keytab {account.keytab}")
    return Finding(f"{name} gave {account.domain}\\{account.user}")


PROVIDER_STEP: Final = Step(
    name="host-account", title="The spec's provider gives a host account", run=_provider
)
IDENTITY_STEP: Final = Step(name="host-identity", title="The host identity is there", run=_identity)
LOGON_STEPS: Final = (
    Step(
        name="host-ticket",
        title="The host identity gets a ticket (klist get krbtgt)",
        run=_logon,
        needs=("host-identity", "clock"),
    ),
    Step(
        name="ldap",
        title="The directory takes a sealed logon (nltest /sc_verify)",
        run=_ldap,
        needs=("host-ticket",),
    ),
    Step(
        name="host-key-version",
        title="The host identity's keytab is current",
        run=_keytab_version,
        needs=("ldap",),
    ),
)
