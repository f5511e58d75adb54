"""Rules about files of other tools that carry or name credential specs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from credspec.errors import Problem
from credspec.spec.rules.rule import Rule


class ComposeService(NamedTuple):
    """A service of a Compose file, and its JSON pointer."""

    where: str
    service: dict[str, Any]


class ComposeCredentialSpec(Rule[ComposeService]):
    """A service names its spec in a way that only Windows knows."""

    code = "lint-compose-credential-spec"
    reason = (
        "Docker Compose on Linux ignores credential_spec: the container starts without identity."
    )

    def check(self, part: ComposeService) -> Iterator[Problem]:
        """Yield a problem for a service with ``credential_spec``."""
        if "credential_spec" in part.service:
            yield Problem(
                self.code,
                "credential_spec, which Docker Compose on Linux ignores",
                f"{part.where}/credential_spec",
                'security_opt: ["credentialspec=file://NAME.json"]',
                "use security_opt, which works on Windows too",
            )


class Carrier(NamedTuple):
    """A file that may carry a spec: its kind, what is expected in it, whether it has one."""

    kind: str
    expected: str
    has_spec: bool


class NoSpec(Rule[Carrier]):
    """A file names no spec."""

    code = "lint-no-spec"
    reason = "The file is of a kind that can name a credential spec, and names none."

    def check(self, part: Carrier) -> Iterator[Problem]:
        """Yield a problem for a file without a spec."""
        if not part.has_spec:
            found = f"{part.kind} that names no credential spec"
            yield Problem(self.code, found, expected=part.expected)


COMPOSE_CREDENTIAL_SPEC = ComposeCredentialSpec()
NO_SPEC = NoSpec()
