"""An examination: the steps in the order of the data flow, and what they pass on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from credspec.config.host import Config
from credspec.directory.accounts import GroupManagedServiceAccount
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.directory.locator import DomainController
from credspec.directory.managed_password import ManagedPassword
from credspec.doctor.account_steps import account_steps
from credspec.doctor.host_steps import HOST_STEPS
from credspec.doctor.logon_steps import IDENTITY_STEP, LOGON_STEPS, PROVIDER_STEP
from credspec.doctor.network_steps import network_steps
from credspec.doctor.other_domains import OtherDomain, other_domain_step
from credspec.doctor.services_step import services_step
from credspec.doctor.spec_steps import DOMAIN_STEP, SPEC_STEP
from credspec.doctor.step import State, Step, StepResult
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.service_names import ServiceName
from credspec.kerberos.tickets import Ticket
from credspec.providers.selection import Providers, plugin_source
from credspec.session.host_identity import HostIdentity
from credspec.session.keytab_principal import with_guess
from credspec.spec.document import CredentialSpec

_DOCKER_SOCKET = Path("/var/run/docker.sock")


@dataclass(slots=True, kw_only=True)
class Examination:
    """What is examined, and what the steps so far have learnt.

    Either `spec_source` (a callable that returns the bytes of a spec) or `domain` and `accounts`
    say what to look at. `identity` is what to log on with. `only_directory` leaves out what
    belongs to this host: agent, runtime, gateway. With `providers`, a spec's own host account takes
    the place of `identity`. `services` are those whose owners are looked at.
    """

    config: Config
    krb5_conf: AgentKrb5Conf
    identity: HostIdentity
    spec_source: Callable[[], bytes] | None = None
    domain: str | None = None
    accounts: tuple[str, ...] = ()
    only_directory: bool = False
    providers: Providers | None = None
    docker_socket: Path = _DOCKER_SOCKET
    services: tuple[ServiceName, ...] = ()
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    spec: CredentialSpec | None = None
    controllers: list[DomainController] = field(default_factory=list)
    ticket: Ticket | None = None
    connection: Connection | None = None
    facts: DomainFacts | None = None
    found: dict[str, GroupManagedServiceAccount] = field(default_factory=dict)
    passwords: dict[str, ManagedPassword] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    others: dict[str, OtherDomain] = field(default_factory=dict)

    def results(self) -> Iterator[StepResult]:
        """Run the steps one after the other; each result comes when its step has ended.

        A step whose needs were not met is skipped and says why. Nothing is raised but what is a
        bug in credspec.
        """
        failed: set[str] = set()
        for step in self._steps():
            missing = [name for name in step.needs if name in failed]
            if missing:
                failed.add(step.key)
                text = f"not tried, since {missing[0]} failed"
                yield StepResult(step=step, state=State.SKIPPED, text=text)
                continue
            result = _run(step, self)
            if result.state is State.FAILED:
                failed.add(step.key)
            yield result

    def close(self) -> None:
        """Close the connections that there are."""
        for other in self.others.values():
            if other.connection is not self.connection:
                other.connection.close()
        self.others.clear()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _steps(self) -> Iterator[Step]:
        """Return the steps; the accounts are known only after the first one has run."""
        if self.spec_source is not None:
            yield SPEC_STEP
        if self.providers is not None and self.spec is not None and plugin_source(self.spec):
            yield PROVIDER_STEP
            yield replace(IDENTITY_STEP, needs=(PROVIDER_STEP.name,))
        else:
            yield IDENTITY_STEP
        if self.domain is not None:
            yield from network_steps(self.config.transport)
            yield from LOGON_STEPS
            yield DOMAIN_STEP
            if self.services:
                yield services_step(self.services)
            for account in self.accounts:
                yield from account_steps(account)
            others = self.spec.other_accounts if self.spec is not None else ()
            for scope in dict.fromkeys(entry.scope for entry in others):
                yield other_domain_step(scope)
                names = (e.name.rstrip("$") for e in others if e.scope == scope)
                for name in dict.fromkeys(names):
                    yield from account_steps(name, scope)
        if not self.only_directory:
            yield from HOST_STEPS


def _run(step: Step, examination: Examination) -> StepResult:
    started = time.monotonic()
    try:
        finding = step.run(examination)
    except CredspecError as error:
        if isinstance(error, NotPermittedError):
            error = with_guess(error, str(getattr(examination.identity, "guess", "")))
        return StepResult.of_error(step, error, time.monotonic() - started)
    return StepResult(
        step=step,
        state=State.WARNING if finding.warnings else State.OK,
        text=finding.text,
        problems=finding.warnings,
        seconds=time.monotonic() - started,
    )
