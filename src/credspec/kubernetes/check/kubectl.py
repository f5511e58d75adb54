"""The cluster as kubectl shows it to its user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kubernetes.objects.names import GROUP, PLURAL, USE, service_account_user
from credspec.printable import printable

_SECONDS: Final = 20.0
_MAX_SHOWN: Final = 300
_NOT_FOUND: Final = "(NotFound)"
_NO_RESOURCE: Final = "the server doesn't have a resource type"
_FORBIDDEN: Final = "(Forbidden)"


class Output(NamedTuple):
    """What a program printed, and its exit status."""

    status: int
    stdout: str
    stderr: str


class View(Protocol):
    """A cluster, as far as the steps look at it; failures are `CredspecError`."""

    def get(self, resource: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """Return an object, None if there is none."""

    def find(self, resource: str, namespace: str, *, labels: str = "") -> list[dict[str, Any]]:
        """Return the objects with certain labels; of all namespaces if `namespace` is empty."""

    def events_of(self, namespace: str, pod: str) -> list[dict[str, Any]]:
        """Return the events of a pod, the latest last."""

    def may_use(self, namespace: str, account: str, name: str) -> bool:
        """Return whether a service account may use a credential spec."""

    def run_in(
        self, namespace: str, pod: str, container: str, command: Sequence[str], text: str
    ) -> Output:
        """Run a program in a container, with a text as its standard input."""


class Kubectl:
    """A cluster by kubectl; `options` are such as ``--context``."""

    def __init__(self, options: Sequence[str] = (), program: str = "kubectl") -> None:
        self._command = [program, *options]

    def get(self, resource: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """See `View`."""
        scope = ["--namespace", namespace] if namespace else []
        return self._json(["get", resource, name, *scope])

    def find(self, resource: str, namespace: str, *, labels: str = "") -> list[dict[str, Any]]:
        """See `View`."""
        scope = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        return self._items(["get", resource, *scope, "--selector", labels])

    def events_of(self, namespace: str, pod: str) -> list[dict[str, Any]]:
        """See `View`."""
        selector = f"involvedObject.kind=Pod,involvedObject.name={pod}"
        order = ["--sort-by", ".metadata.creationTimestamp"]
        return self._items(
            ["get", "events", "--namespace", namespace, "--field-selector", selector, *order]
        )

    def may_use(self, namespace: str, account: str, name: str) -> bool:
        """See `View`; a user who may not ask for others gets `NotPermittedError`."""
        user, groups = service_account_user(namespace, account)
        output = self._run(
            [
                *("auth", "can-i", USE, f"{PLURAL}.{GROUP}/{name}", "--namespace", namespace),
                *("--as", user, *(f"--as-group={group}" for group in groups)),
            ]
        )
        answer = output.stdout.strip().partition(" ")[0]
        if answer not in {"yes", "no"}:
            raise self._failed(output)
        return answer == "yes"

    def run_in(
        self, namespace: str, pod: str, container: str, command: Sequence[str], text: str
    ) -> Output:
        """See `View`."""
        return self._run(
            ["exec", "--stdin", "--namespace", namespace, pod, "-c", container, "--", *command],
            text,
        )

    def _items(self, arguments: Sequence[str]) -> list[dict[str, Any]]:
        found = self._json(arguments) or {}
        return [each for each in found.get("items") or [] if isinstance(each, dict)]

    def _json(self, arguments: Sequence[str]) -> dict[str, Any] | None:
        output = self._run([*arguments, "--output", "json"])
        if output.status:
            if _NOT_FOUND in output.stderr or _NO_RESOURCE in output.stderr:
                return None
            raise self._failed(output)
        try:
            found = json.loads(output.stdout)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._failed(output)
        return found

    def _run(self, arguments: Sequence[str], text: str = "") -> Output:
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise UnreachableError.of(
                "kubectl-missing",
                f"{self._command[0]} is not installed",
                where="kubectl",
                remedy="install kubectl, with access to the cluster",
            ) from None
        except subprocess.TimeoutExpired:
            raise UnreachableError.of(
                "kubectl-failed",
                f"no answer within {_SECONDS:g} s",
                where=f"kubectl {arguments[0]}",
                remedy="see whether the cluster answers: kubectl version",
            ) from None
        return Output(done.returncode, done.stdout, done.stderr)

    def _failed(self, output: Output) -> CredspecError:
        lines = output.stderr.strip().splitlines() or ["it printed nothing that is understood"]
        found = printable(lines[-1][:_MAX_SHOWN])
        if _FORBIDDEN in output.stderr:
            return NotPermittedError.of(
                "kubectl-forbidden",
                found,
                where="kubectl",
                remedy="ask as a user who may, such as an administrator of the cluster",
            )
        return UnreachableError.of(
            "kubectl-failed",
            found,
            where="kubectl",
            remedy="see whether the cluster answers: kubectl version",
        )
