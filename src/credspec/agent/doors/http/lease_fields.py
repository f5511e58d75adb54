"""The body of a request for a lease: each field with its bounds, for the code and the schema."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

from credspec.agent.audit import Caller
from credspec.agent.leases.request import LeaseRequest, MalformedReference, requested_spec
from credspec.config.policy import KUBERNETES_SOURCE
from credspec.contract.errors import ShimError
from credspec.contract.service_names import (
    BROKER,
    TGT,
    TICKETS,
    check_agreement,
    listed_services,
)
from credspec.errors import NotPermittedError, UsageError
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.reference import SpecReference

MAX_BODY_BYTES: Final = 256 * 1024
"""The body: a ``raw://`` document of 64 KiB, escaped."""

_MAX_OUTSIDE_BYTES: Final = 2048

MAX_RAW_CHARACTERS: Final = len("raw://") + MAX_SPEC_BYTES
MAX_PATH_BYTES: Final = 4096  # PATH_MAX of Linux
MAX_NAME_BYTES: Final = 255  # NAME_MAX of Linux
MAX_CONTAINER: Final = 320
"""A runtime's id, or NAMESPACE/POD of Kubernetes, which are at most 63 and 253 characters."""

MAX_ID: Final = 2**32 - 2
MODE_BITS: Final = 0o666
OWNER_READS: Final = 0o400
DEFAULT_MODE: Final = 0o600

PLAIN_TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
"""Text of one line, as a pattern that Python and JSON Schema read alike."""

ABSOLUTE_PATH: Final = r"^/[^\x00-\x1f\x7f]*$"

_PLAIN: Final = re.compile(PLAIN_TEXT.removesuffix("$") + r"\Z")


def parse_body(body: bytes) -> object:
    """Return the JSON value of a body in UTF-8.

    Raises:
        UsageError: `request-not-json`, `request-too-long` if it holds many values.
    """
    if _outside_texts(body) > _MAX_OUTSIDE_BYTES:
        raise UsageError.of(
            "request-too-long",
            "too many values",
            where="request",
            expected="the fields of a lease",
        )
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise UsageError.of(
            "request-not-json",
            "the body is not JSON",
            where="request",
            expected="JSON in UTF-8, with each key once",
        ) from None


def lease_request(lease_id: str, body: object, caller: Caller) -> LeaseRequest:
    """Return what a body asks for.

    Raises:
        UsageError: `request-wrong-type`, `request-wrong-value`, `request-too-long`,
            `tickets-options`.
        NotPermittedError: `spec-source-not-permitted`.
    """
    if not isinstance(body, dict):
        raise UsageError.of("request-wrong-type", "the body is not an object", where="request")
    mode = body.get("mode", DEFAULT_MODE)
    if type(mode) is not int or mode & ~MODE_BITS or not mode & OWNER_READS:
        raise UsageError.of(
            "request-wrong-value",
            _shown(mode),
            where="/mode",
            expected="permission bits of a file that its owner can read and no user execute",
        )
    tickets, services = _tickets(body)
    return LeaseRequest(
        lease_id=lease_id,
        caller=caller,
        spec=(spec := _spec(body)),
        brought_from=_brought_from(body, spec, caller),
        container=_text(body, "container", MAX_CONTAINER),
        runtime_state=_path(body, "runtime_state"),
        uid=_number(body, "uid"),
        gid=_number(body, "gid"),
        mode=mode,
        keytab=_flag(body, "keytab"),
        name_fallback=_flag(body, "name_fallback"),
        replay_cache=_flag(body, "replay_cache"),
        tickets=tickets,
        services=services,
    )


def _tickets(body: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    kind, listed = body.get("tickets", TGT), body.get("services", [])
    if kind not in TICKETS:
        raise UsageError.of(
            "request-wrong-value", _shown(kind), where="/tickets", expected=" or ".join(TICKETS)
        )
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise _wrong_type("services", listed, "a list of names of services")
    try:
        services = listed_services(",".join(listed), "/services", is_pattern=kind == BROKER)
    except ShimError as error:
        raise UsageError.of("request-wrong-value", error.text) from None
    try:
        check_agreement(kind, services, keytab=_flag(body, "keytab"))
    except ShimError as error:
        raise UsageError.of("tickets-options", error.text) from None
    return kind, services


def _outside_texts(body: bytes) -> int:
    """Return how many bytes of JSON are not in texts: what parsing them costs grows with these."""
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', _MAX_OUTSIDE_BYTES)
    return len(parts) + sum(map(len, parts[::2]))


def _spec(body: dict[str, Any]) -> SpecReference | MalformedReference:
    value = body.get("spec")
    if type(value) is not str:
        raise _wrong_type("spec", value, "a text")
    is_raw = value[:6].lower() == "raw://"
    most = MAX_RAW_CHARACTERS if is_raw else MAX_PATH_BYTES
    if len(value) > most:
        raise _too_long("spec", f"at most {most} characters")
    return requested_spec(value)


def _brought_from(
    body: dict[str, Any], spec: SpecReference | MalformedReference, caller: Caller
) -> str | None:
    value = body.get("spec_source")
    if value is None:
        return None
    is_document = isinstance(spec, MalformedReference) or spec.scheme == "raw"
    if value != KUBERNETES_SOURCE or not is_document:
        raise UsageError.of(
            "request-wrong-value",
            _shown(value),
            where="/spec_source",
            expected=f'"{KUBERNETES_SOURCE}", with a document (raw://)',
        )
    if caller.uid not in {0, os.geteuid()}:
        raise NotPermittedError.of(
            "spec-source-not-permitted",
            f"user {caller.uid} cannot say where a document comes from",
            where="/spec_source",
            remedy="leave it out",
        )
    return KUBERNETES_SOURCE


def _text(body: dict[str, Any], name: str, most: int) -> str:
    value = body.get(name)
    if type(value) is not str:
        raise _wrong_type(name, value, "a text")
    if len(value) > most:
        raise _too_long(name, f"at most {most} characters")
    if not _PLAIN.match(value) or not _is_unicode(value):
        raise UsageError.of(
            "request-wrong-value",
            _shown(value),
            where=f"/{name}",
            expected="text without control characters",
        )
    return value


def _path(body: dict[str, Any], name: str) -> str:
    value = _text(body, name, MAX_PATH_BYTES)
    if not value.startswith("/"):
        raise UsageError.of("request-wrong-value", "not an absolute path", where=f"/{name}")
    data = value.encode()
    longest = max(map(len, data.split(b"/")))
    if len(data) >= MAX_PATH_BYTES or longest > MAX_NAME_BYTES:
        expected = f"less than {MAX_PATH_BYTES} bytes, {MAX_NAME_BYTES} between slashes"
        raise _too_long(name, expected)
    return value


def _number(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise _wrong_type(name, value, f"a number from 0 to {MAX_ID}")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if type(value) is not bool:
        raise _wrong_type(name, value, "true or false")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears more than once")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _shown(value: object) -> str:
    # Neither a long text nor a large number is to be written out whole.
    if isinstance(value, str):
        return repr(value[:80])[:80]
    if isinstance(value, int) and abs(value) > 2**64:
        return "a number too large"
    return repr(value)[:80] if isinstance(value, int | float | None) else type(value).__name__


def _wrong_type(name: str, value: object, expected: str) -> UsageError:
    return UsageError.of("request-wrong-type", _shown(value), where=f"/{name}", expected=expected)


def _too_long(name: str, expected: str) -> UsageError:
    return UsageError.of("request-too-long", "too long", where=f"/{name}", expected=expected)
