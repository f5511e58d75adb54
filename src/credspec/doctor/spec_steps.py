"""Steps on the document: whether it is valid, and whether it is about the domain that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from credspec.agent.lease_content import accounts_of
from credspec.directory.domain import differences
from credspec.doctor.step import Finding, Step
from credspec.errors import InvalidSpecError
from credspec.spec.document import CredentialSpec
from credspec.spec.lint import Severity, lint_bytes

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination


def _spec(examination: Examination) -> Finding:
    assert examination.spec_source is not None  # noqa: S101 - narrows for the type checker
    data = examination.spec_source()
    spec = CredentialSpec.from_bytes(data)
    accounts_of(spec)
    examination.spec = spec
    examination.domain = spec.domain
    examination.accounts = spec.own_accounts
    warnings = [
        finding.problem for finding in lint_bytes(data) if finding.severity is Severity.WARNING
    ]
    text = f"valid: {', '.join(spec.own_accounts)} of {spec.domain}"
    text += "".join(f", {entry.name} of {entry.scope}" for entry in spec.other_accounts)
    return Finding(text, tuple(warnings))


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
