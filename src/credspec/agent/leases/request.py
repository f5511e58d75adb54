"""What is asked for when a lease is asked for, whichever door the request came through."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypeAlias

from credspec.agent.audit import NOBODY, Caller
from credspec.config.policy import GRPC_SOURCE
from credspec.contract.service_names import TGT
from credspec.errors import InvalidSpecError, Problem
from credspec.providers.provider import HostAccount
from credspec.spec.document import CredentialSpec
from credspec.spec.reference import SpecReference, parse_reference


@dataclass(frozen=True, slots=True)
class MalformedReference:
    """A malformed reference: its request is refused, and so audited, as any other.

    `text` may be a misspelt document with a secret in it.
    """

    text: str = field(repr=False)
    problems: tuple[Problem, ...]


RequestedSpec: TypeAlias = SpecReference | CredentialSpec | MalformedReference
"""A reference to a credential spec, or one that the door has read and checked already."""


def requested_spec(text: str) -> SpecReference | MalformedReference:
    """Return the reference that a text is."""
    try:
        return parse_reference(text)
    except InvalidSpecError as error:
        return MalformedReference(text, error.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A request for a lease; fields as in `LeaseRecord`.

    `host_account` is what to log on with in place of what the spec or the host has. It is kept only
    in memory, for as long as the lease. With `document_is_vouched_for` the door has decided
    already that this document may be used, by a list of its own of those who may bring one
    (``[credentials_fetcher] users``): then `spec_sources` of the policy has no say. `brought_from`
    is where a document comes from that the one who starts the container did not choose freely, as
    the policy calls it; only root says so.
    """

    lease_id: str
    spec: RequestedSpec = field(repr=False)
    document_is_vouched_for: bool = False
    brought_from: str | None = None
    container: str
    runtime_state: str
    uid: int
    gid: int
    mode: int = 0o600
    keytab: bool = False
    name_fallback: bool = False
    replay_cache: bool = False
    tickets: str = TGT
    services: tuple[str, ...] = ()
    place: str | None = None
    caller: Caller = NOBODY
    host_account: HostAccount | None = field(default=None, repr=False)

    @property
    def user(self) -> int | None:
        """The unprivileged user who asks, None for the host's own."""
        return self.caller.uid if self.caller.uid not in {NOBODY.uid, 0, os.geteuid()} else None

    @property
    def spec_source(self) -> str:
        """Where the spec comes from, as policy and journal call it."""
        if self.document_is_vouched_for:
            return GRPC_SOURCE
        if self.brought_from is not None:
            return self.brought_from
        return self.spec.scheme if isinstance(self.spec, SpecReference) else "raw"
