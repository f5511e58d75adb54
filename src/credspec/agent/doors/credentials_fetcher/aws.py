"""What the calls with ARNs fetch: a spec from S3, and from Secrets Manager whom to log on as.

The credentials for that come with each request and are kept nowhere. Everything here blocks.
"""

from __future__ import annotations

import gc
import json
import re
import threading
from contextlib import closing
from functools import cache
from itertools import count
from typing import Any, Final

from credspec.agent.doors.credentials_fetcher.accepted_specs import accepted_spec
from credspec.agent.doors.credentials_fetcher.requests import (
    AwsAccess,
    Refusal,
    SpecLocation,
    UserPassword,
    WantedTicket,
    new_user,
    refused_as,
    wanted_ticket,
)
from credspec.errors import (
    CredspecError,
    InvalidSpecError,
    NotPermittedError,
    PermanentFaultError,
    UnreachableError,
    UsageError,
)
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES

SECONDS: Final = 60.0
"""How long all that is fetched for one request may take."""

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 10
_ATTEMPTS: Final = 3
_SECRET_ARN: Final = re.compile(r"arn:aws[a-z-]{0,20}:secretsmanager:[!-~]{1,2000}")
_NO_DOMAIN: Final = "domain.invalid"  # RFC 2606: nobody's
_NAMES: Final = {
    "name": ("username", "usernameOfStandardUserAccount"),
    "password": ("password", "passwordOfStandardUserAccount"),
    "domain": ("domainName",),
}

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and the AWS SDKs' own lists.
_THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_SERVER_ERROR: Final = 500
_TOO_MANY_REQUESTS: Final = 429

_QUESTIONS_A_COLLECTION: Final = 2

_loading: Final = threading.Lock()
_questions: Final = count(1)


def require_boto3() -> None:
    """Refuse to go on without boto3.

    Raises:
        UsageError: `boto3-missing`.
    """
    try:
        import boto3  # noqa: F401
    except ImportError:
        raise UsageError.of(
            "boto3-missing",
            "the Python package boto3 is not installed",
            where="calls with ARNs",
            remedy="pip install 'credspec[grpc]'",
        ) from None


def fetch_spec(access: AwsAccess, location: SpecLocation) -> WantedTicket:
    """Fetch a spec from S3.

    Raises:
        RefusedCallError: with `Refusal.SPEC_NOT_FETCHED` or `Refusal.SPEC_FIELDS`.
    """
    with refused_as(Refusal.SPEC_NOT_FETCHED):
        found = _asked(
            access, "s3", "get_object", location.arn, Bucket=location.bucket, Key=location.key
        )
    with refused_as(Refusal.SPEC_FIELDS):
        return wanted_ticket(accepted_spec(found["Body"]), location.name, location.arn)


def fetch_user(access: AwsAccess, ticket: WantedTicket) -> tuple[UserPassword, str]:
    """Fetch whom a spec says to log on as; return that and the ARN of the secret.

    Raises:
        RefusedCallError: with the `Refusal` of what is wrong.
    """
    with refused_as(Refusal.SPEC_FIELDS):
        arn = _secret_arn(ticket.spec)
    return fetch_secret(access, arn), arn


def fetch_secret(access: AwsAccess, arn: str) -> UserPassword:
    """Fetch a secret; it must name the domain of its user, which no spec does in its place.

    Raises:
        RefusedCallError: with the `Refusal` of what is wrong.
    """
    with refused_as(Refusal.SECRET_NOT_FETCHED):
        found = _asked(access, "secretsmanager", "get_secret_value", arn, SecretId=arn)
        values = _secret(found.get("SecretString"), arn)
    domain = values["domain"]
    user = new_user(values["name"], values["password"], domain or _NO_DOMAIN)
    with refused_as(Refusal.DOMAIN_OR_USER):
        if not domain:
            raise PermanentFaultError.of(
                "secret-invalid",
                "the secret names no domain, and a spec must not decide where its password goes",
                where=arn,
                expected="domainName, the DNS name of the user's domain",
            )
    return user


def _secret_arn(spec: CredentialSpec) -> str:
    host = spec.active_directory_config.host_account_config
    given: Any = None if host is None else host.plugin_input
    if isinstance(given, str) and given.startswith("{"):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None
    if isinstance(given, dict):
        given = given.get("CredentialArn", given.get("credentialArn"))
    if not isinstance(given, str) or not _SECRET_ARN.fullmatch(given):
        raise InvalidSpecError.of(
            "plugin-input-invalid",
            "no ARN of a secret",  # the input may hold a secret itself
            where="/ActiveDirectoryConfig/HostAccountConfig/PluginInput",
            expected='{"CredentialArn": "arn:aws:secretsmanager:..."}',
        )
    return given


def _secret(text: object, arn: str) -> dict[str, str]:
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _secret_invalid("no JSON object", arn)
    values = {}
    for name, keys in _NAMES.items():
        value = next((document[key] for key in keys if key in document), "")
        if not isinstance(value, str):
            raise _secret_invalid(f"{keys[0]} is no text", arn)
        values[name] = value
    return values


def _secret_invalid(found: str, arn: str) -> CredspecError:
    return PermanentFaultError.of(
        "secret-invalid",
        found,
        where=arn,
        expected="JSON with username, password and domainName",
    )


def _asked(access: AwsAccess, service: str, operation: str, what: str, **names: str) -> Any:
    """Ask AWS once for something; of a body that comes in pieces, what a spec may have is read.

    Raises:
        NotPermittedError: `aws-refused`.
        UnreachableError: `aws-unreachable`, `aws-unavailable`.
        UsageError: `boto3-missing`.
    """
    descriptions = _descriptions()
    import botocore.config
    import botocore.session

    configuration = botocore.config.Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    try:
        session = botocore.session.Session()
        # What it reads of the services' descriptions is the same for all, and much.
        session.register_component("data_loader", descriptions)
        client = session.create_client(
            service,
            region_name=access.region,
            aws_access_key_id=access.access_key_id,
            aws_secret_access_key=access.secret_access_key,
            aws_session_token=access.session_token,
            config=configuration,
        )
        with closing(client):
            found = getattr(client, operation)(**names)
            if "Body" in found:
                found["Body"] = found["Body"].read(MAX_SPEC_BYTES + 1)
            return found
    except Exception as error:  # noqa: BLE001 - there are many, and their texts may hold anything
        raise _failed(error, what) from None
    finally:
        _collect_now_and_then()


def _descriptions() -> Any:
    """Load botocore, once; return what reads the descriptions of services."""
    require_boto3()
    with _loading:
        return _loaded()


@cache
def _loaded() -> Any:
    import botocore.loaders
    import botocore.session

    descriptions = botocore.loaders.create_loader()
    session = botocore.session.Session()
    session.register_component("data_loader", descriptions)
    for service in ("s3", "secretsmanager"):
        # What the first client has loaded stays for the next ones. Without keys it would look for
        # the host's.
        session.create_client(
            service,
            region_name="us-east-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - not one
        )
    del session
    # All that is there stays; collections after each call need not look at it.
    gc.collect()
    gc.freeze()
    return descriptions


def _collect_now_and_then() -> None:
    """Collect what clients leave: each some thousand objects that hold one another.

    Those of many at once would take a collection so long that it holds up the event loop, too.
    """
    if next(_questions) % _QUESTIONS_A_COLLECTION == 0:
        gc.collect()


def _failed(error: Exception, what: str) -> CredspecError:
    """Say of a failure what cannot hold a secret: AWS' own code, or the error's kind."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        found = answer.get("Error", {})
        code = str(found.get("Code", "unknown"))[:80] if isinstance(found, dict) else "unknown"
        if _is_in_trouble(answer, code):
            return UnreachableError.of("aws-unavailable", code, where=what)
        return NotPermittedError.of("aws-refused", code, where=what)
    return UnreachableError.of("aws-unreachable", type(error).__name__, where=what)


def _is_in_trouble(answer: dict[str, Any], code: str) -> bool:
    """Return whether AWS could not answer now, rather than did not want to."""
    metadata = answer.get("ResponseMetadata")
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    return code in _THROTTLED or (
        isinstance(status, int) and (status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS)
    )
