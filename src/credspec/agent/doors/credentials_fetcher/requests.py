"""What the calls may ask for, and the texts with which credentials-fetcher refuses the rest.

Clients know its texts, so each refusal begins with one of them; what follows is ours, the same
words as everywhere else. Everything is checked here before it becomes a path, a name in Kerberos
or a lease.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from credspec.agent.doors.credentials_fetcher.accepted_specs import AcceptedSpec, accepted_spec
from credspec.directory.account_identity import valid_account_name
from credspec.directory.locator import valid_domain
from credspec.errors import CredspecError, InvalidSpecError, Step, UnreachableError, UsageError
from credspec.fetcher_lease_files import LEASE_ID
from credspec.spec.document import CredentialSpec

MOST_SPECS: Final = 100
"""How many specs a request may bring."""

LONGEST_NAME: Final = 103
"""How long user names and passwords may be, in characters; credentials-fetcher's limit."""

_LONGEST_DOMAIN: Final = 252
# What Active Directory forbids in a sAMAccountName, and what Kerberos gives a meaning.
_USER: Final = re.compile(r'[^"/\\\[\]:;|=,+*?<>@\x00-\x1f\x7f]{1,103}')
_ARN: Final = re.compile(
    r"(?P<location>arn:aws[a-z-]{0,20}:s3:::(?P<bucket>[a-z0-9][a-z0-9.-]{1,62})/"
    r"(?P<key>[^#\x00-\x1f\x7f]{1,1024}))#(?P<mount>.*)",
    re.DOTALL,
)
_MOUNT: Final = re.compile(r"(?P<task>[^/]*)/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_AWS_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")


class Refusal(StrEnum):
    """credentials-fetcher's texts, as its clients know them."""

    SPEC_MALFORMED = "Error: credential spec provided is not properly formatted"
    SPEC_FIELDS = "ERROR: invalid credentialspec fields"
    HOST_TICKET = "ERROR: cannot get machine krb ticket"
    USER_TICKET = "ERROR: cannot retrieve domainless user kerberos tickets"
    ACCOUNT_TICKET = "ERROR: Cannot get gMSA krb ticket"
    LEASE_ID = "Error: lease_id is not valid"
    DOMAIN_OR_USER = "Error: invalid domainName/username"
    CREDENTIALS = (
        "Error: domainless AD user credentials is not valid/ "
        "credentials should not be more than 104 charaters"
    )
    NOTHING_RENEWED = "failed to renew any Kerberos tickets"
    DUPLICATE = "ERROR: found duplicate mount paths"
    ARN_EMPTY = "ERROR: credentialspec arn should not be empty/not properly formatted"
    ARN = "ERROR: credentialspec arn is not valid"
    MOUNT = "ERROR: mount path is invalid"
    SPEC_NOT_FETCHED = "ERROR: credentialspec cannot be retrieved from s3"
    SECRET_NOT_FETCHED = "ERROR: Invalid credentials for domainless user"  # noqa: S105 - a text
    ACCESS_KEY = "Error: access credentials should not be empty"


class RefusedCallError(Exception):
    """A call that is refused: its text, and what was wrong in our words."""

    def __init__(self, refusal: Refusal, error: CredspecError) -> None:
        self.refusal = refusal
        self.error = error
        super().__init__(f"{refusal}: {'; '.join(str(error).splitlines())}")


@contextmanager
def refused_as(refusal: Refusal) -> Iterator[None]:
    """Let what fails inside be refused with this text."""
    try:
        yield
    except CredspecError as error:
        raise RefusedCallError(refusal, error) from None


@dataclass(frozen=True, slots=True)
class WantedTicket:
    """A ticket that a call asks for: in which directory of the lease, and of which spec.

    `spec` has one account, see `wanted_ticket`. `notes` say what of the document that came was
    missing and not looked at.
    """

    name: str
    spec: CredentialSpec
    spec_arn: str = ""
    notes: tuple[str, ...] = ()

    @property
    def domain(self) -> str:
        """DNS name of the account's domain."""
        return self.spec.domain


@dataclass(frozen=True, slots=True)
class UserPassword:
    """Whom to log on as, for one or more leases. Never shows its password."""

    name: str
    domain: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        """Return the user as a logon is called, ``user@domain`` in lower case."""
        return f"{self.name}@{self.domain}".lower()


@dataclass(frozen=True, slots=True)
class SpecLocation:
    """Where a spec is in S3, and whose ticket goes where: a task is a lease."""

    arn: str
    bucket: str
    key: str
    task: str
    name: str


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """What to ask AWS with; it comes with a request and goes with it."""

    region: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)


def read_specs(documents: Sequence[str]) -> list[WantedTicket]:
    """Read the specs of a request; one that comes twice counts once.

    Raises:
        RefusedCallError: with `Refusal.SPEC_MALFORMED` or `Refusal.DUPLICATE`.
    """
    found: dict[str, WantedTicket] = {}
    with refused_as(Refusal.SPEC_MALFORMED):
        if not 0 < len(documents) <= MOST_SPECS:
            raise InvalidSpecError.of(
                "specs-number", f"{len(documents)} specs", expected=f"1 to {MOST_SPECS}"
            )
        wanted = [wanted_ticket(accepted_spec(document)) for document in documents]
    for ticket in wanted:
        present = found.setdefault(ticket.name.lower(), ticket)
        if present.domain != ticket.domain:
            raise duplicate(ticket.name)
    return list(found.values())


def wanted_ticket(accepted: AcceptedSpec, name: str = "", spec_arn: str = "") -> WantedTicket:
    """Return what is wanted of a spec: the ticket of the one account that it was left with.

    Without a `name` its directory is called after the account, with a ``$`` at its end if
    MachineAccountName has one: the ECS agent looks for that name in the directory's path.

    Raises:
        CredspecError: `account-name-invalid`.
    """
    spec = accepted.spec
    account = valid_account_name(spec.accounts[0])
    only = replace(
        spec, domain_join_config=replace(spec.domain_join_config, machine_account_name=account)
    )
    dollars = accepted.machine_account_name[len(accepted.machine_account_name.rstrip("$")) :]
    return WantedTicket(name or f"{account}{dollars}", only, spec_arn, accepted.notes)


def duplicate(name: str) -> RefusedCallError:
    """Return the refusal of two tickets for one directory."""
    return RefusedCallError(
        Refusal.DUPLICATE,
        UsageError.of("mount-duplicate", f"{name!r} is wanted twice", where="request"),
    )


def given_user(name: str, password: str, domain: str) -> UserPassword:
    """Check a user that comes with a request.

    Raises:
        RefusedCallError: with `Refusal.CREDENTIALS` or `Refusal.DOMAIN_OR_USER`.
    """
    with refused_as(Refusal.CREDENTIALS):
        for what, value in (("username", name), ("password", password)):
            _check_length(what, value, LONGEST_NAME)
        _check_length("domain", domain, _LONGEST_DOMAIN)
        if "\0" in password:
            raise UsageError.of("password-invalid", "it holds a null character", where="/password")
    with refused_as(Refusal.DOMAIN_OR_USER):
        return UserPassword(_user(name), _domain(domain), password)


def renewed_user(name: str, password: str, domain: str) -> tuple[str, UserPassword]:
    """Check a user of a renewal, which may be ``OLD:NEW``; return whom to look for, and the user.

    Raises:
        RefusedCallError: as `given_user`.
    """
    old, colon, new = name.partition(":")
    if colon:
        with refused_as(Refusal.DOMAIN_OR_USER):
            _user(old, "no user before the colon")
            _user(new, "no user after the colon")
    return old, given_user(new if colon else old, password, domain)


def new_user(name: str, password: str, domain: str) -> UserPassword:
    """Check a user of a new lease; of ``OLD:NEW``, as the secret says amid a rotation, it is NEW.

    Raises:
        RefusedCallError: as `given_user`.
    """
    old, colon, new = name.partition(":")
    if not colon:
        return given_user(name, password, domain)
    with refused_as(Refusal.DOMAIN_OR_USER):
        if old:
            _user(old)
        _user(new, "no user after the colon")
    return given_user(new, password, domain)


def valid_lease_id(lease: str) -> str:
    """Return a lease's id, which may become a path.

    Raises:
        RefusedCallError: with `Refusal.LEASE_ID`.
    """
    with refused_as(Refusal.LEASE_ID):
        if not LEASE_ID.fullmatch(lease):
            raise UsageError.of(
                "lease-id-invalid",
                f"{lease[:80]!r} is not a lease id",
                where="/lease_id",
                expected="letters, digits, - and _, at most 64",
            )
    return lease


def spec_locations(arns: Sequence[str]) -> list[SpecLocation]:
    """Read the ARNs of a request, ``arn:aws:s3:::BUCKET/KEY#TASK/MOUNT``, all of one task.

    Raises:
        RefusedCallError: with the `Refusal` of what is wrong.
    """
    found: dict[str, SpecLocation] = {}
    for arn in arns[: MOST_SPECS + 1]:
        location = _spec_location(arn)
        if location.name.lower() in found:
            raise duplicate(location.name)
        found[location.name.lower()] = location
    with refused_as(Refusal.ARN):
        if len(found) > MOST_SPECS or len({location.task for location in found.values()}) > 1:
            raise UsageError.of(
                "arns-number", "too many, or of several tasks", expected="ARNs of one task"
            )
    return list(found.values())


def _spec_location(arn: str) -> SpecLocation:
    with refused_as(Refusal.ARN_EMPTY if not arn else Refusal.ARN):
        match = _ARN.fullmatch(arn)
        if match is None:
            raise UsageError.of(
                "arn-invalid",
                repr(arn[:120]),
                where="/credspec_arns",
                expected="arn:aws:s3:::BUCKET/KEY#TASK/MOUNT",
            )
    mount = _MOUNT.fullmatch(match["mount"])
    with refused_as(Refusal.MOUNT):
        if mount is None or not LEASE_ID.fullmatch(mount["task"]):
            raise UsageError.of(
                "mount-invalid",
                repr(match["mount"][:120]),
                where="/credspec_arns",
                expected="TASK/MOUNT, each of letters, digits, - and _",
            )
    return SpecLocation(
        match["location"], match["bucket"], match["key"], mount["task"], mount["name"]
    )


def aws_access(
    access_key_id: str, secret_access_key: str, session_token: str, region: str
) -> AwsAccess:
    """Check what AWS is to be asked with.

    Raises:
        RefusedCallError: with `Refusal.ACCESS_KEY`.
    """
    with refused_as(Refusal.ACCESS_KEY):
        if not _REGION.fullmatch(region):
            raise UsageError.of("region-invalid", repr(region[:80]), where="/region")
        for what, value in (
            ("access_key_id", access_key_id),
            ("secret_access_key", secret_access_key),
            ("session_token", session_token),
        ):
            if not _AWS_KEY.fullmatch(value):
                raise UsageError.of(
                    "access-key-invalid", "empty, or not printable", where=f"/{what}"
                )
    return AwsAccess(region, access_key_id, secret_access_key, session_token)


def why_no_ticket(error: CredspecError, *, has_user: bool) -> Refusal:
    """Return the text for a lease that could not be made."""
    if isinstance(error, InvalidSpecError):
        return Refusal.SPEC_FIELDS
    if error.step is Step.HOST_LOGON or isinstance(error, UnreachableError):
        return Refusal.USER_TICKET if has_user else Refusal.HOST_TICKET
    return Refusal.ACCOUNT_TICKET


def _check_length(what: str, value: str, longest: int) -> None:
    if not 0 < len(value) <= longest:
        raise UsageError.of(
            "user-invalid",
            "it is empty" if not value else f"{len(value)} characters",
            where=f"/{what}",
            expected=f"1 to {longest} characters",
        )


def _user(name: str, if_empty: str = "''") -> str:
    if not _USER.fullmatch(name):
        raise UsageError.of(
            "user-invalid",
            repr(name[:80]) if name else if_empty,
            where="/username",
            expected="a user's logon name, or OLD:NEW while the user is replaced",
        )
    return name


def _domain(domain: str) -> str:
    found = valid_domain(domain)
    if "." not in found:
        raise UsageError.of(
            "domain-name-invalid", repr(domain[:80]), where="/domain", expected="a DNS name"
        )
    return found
