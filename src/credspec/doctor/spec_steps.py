"""Steps on the document: whether it is valid, and whether it is about the domain that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from credspec.directory.domain import differences
from credspec.doctor.step import Finding, Step
from credspec.errors import InvalidSpecError, Problem
from credspec.spec.document import CredentialSpec, GroupManagedServiceAccount
from credspec.spec.lint import Severity, lint_bytes

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination


def _spec(examination: Examination) -> Finding:
    assert examination.spec_source is not None  # noqa: S101 - narrows for the type checker
    data = examination.spec_source()
    spec = CredentialSpec.from_bytes(data)
    config = spec.domain_join_config
    own = {spec.domain, (config.net_bios_name or "").lower()}
    entries = spec.active_directory_config.group_managed_service_accounts
    ours = {_key(entry) for entry in entries if entry.scope.lower() in own}
    others = [entry for entry in entries if _key(entry) not in ours]
    examination.spec = spec
    examination.domain = spec.domain
    names = dict.fromkeys((spec.default_account, *spec.accounts))
    foreign = {_key(entry) for entry in others}
    unique = {name.lower(): name for name in reversed(names) if name.lower() not in foreign}
    examination.accounts = tuple(reversed(unique.values()))
    warnings = [
        finding.problem for finding in lint_bytes(data) if finding.severity is Severity.WARNING
    ]
    warnings += [
        Problem(
            code="account-other-domain",
            where=f"account {entry.name}",
            found=f"its domain is {entry.scope}, which is not looked at here",
            remedy=f"make a spec with {entry.scope} as its domain to check it",
        )
        for entry in others
    ]
    text = f"valid: {', '.join(spec.accounts)} of {spec.domain}"
    return Finding(text, tuple(warnings))


def _key(entry: GroupManagedServiceAccount) -> str:
    return entry.name.rstrip("$").lower()


def _domain(examination: Examination) -> Finding:
    facts = examination.facts
    assert facts is not None  # noqa: S101 - narrows for the type checker
    text = f"{facts.dns_name} ({facts.netbios_name}), SID {facts.sid}, GUID {facts.guid}"
    if examination.spec is None:
        return Finding(text)
    errors, warnings = differences(examination.spec.domain_join_config, facts)
    if errors:
        raise InvalidSpecError(*errors)
    return Finding(f"the spec is about it: {text}", warnings)


SPEC_STEP = Step(name="spec", title="The credential spec is valid", run=_spec)
DOMAIN_STEP = Step(
    name="domain", title="SID, GUID and names are the domain's", run=_domain, needs=("ldap",)
)
