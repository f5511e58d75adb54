"""AWS Secrets Manager, and parameters of its Systems Manager."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import PATH, Key, Table, text_of
from credspec.errors import NotPermittedError, UnreachableError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.deadline import Deadline
from credspec.providers.extras import import_extra
from credspec.providers.https import HttpsClient
from credspec.providers.library_transport import botocore_handler
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import SERVER, TEXTS, ProviderTable, read_table
from credspec.providers.server_url import Server, server_url
from credspec.providers.tls import client_context, read_authorities

_REGION: Final = re.compile(r"[a-z]{2,5}(?:-[a-z]{1,12}){1,3}-[0-9]{1,2}")
_ARN: Final = re.compile(
    rf"arn:aws(?:-[a-z]{{1,5}}){{0,3}}:(?:(?P<s>secretsmanager)|ssm):(?P<region>{_REGION.pattern}):"
    r"(?P<account>[0-9]{12}):(?(s)secret:|parameter/)(?P<name>[A-Za-z0-9/_+=.@-]{1,1024})"
)
_NAME: Final = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_REFUSALS: Final = frozenset(
    {"AccessDeniedException", "ResourceNotFoundException", "ParameterNotFound"}
)
_WHERE: Final = "provider aws"


_REGION_KIND: Final = text_of(
    lambda text: text if _REGION.fullmatch(text) else None,
    "a region such as eu-west-1",
    takes="a text",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings(ProviderTable):
    """Settings of `AwsProvider`."""

    table: ClassVar = Table(
        "providers.aws", "AWS Secrets Manager and Parameter Store; needs the extra `aws`."
    )

    region: Annotated[
        str | None,
        Key(
            kind=_REGION_KIND,
            meaning="The region of secrets that are named without an ARN.",
            default="none",
            reloaded=True,
        ),
    ] = None
    endpoint_url: Annotated[
        tuple[Server, str] | None,
        Key(
            kind=SERVER,
            meaning="A private end point.",
            default="AWS's own end point of the ARN's region",
            reloaded=True,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        Key(
            kind=PATH,
            meaning="The only authorities, in PEM, that may sign the end point's certificate.",
            default="the host's authorities",
            reloaded=True,
        ),
    ] = None
    secrets: Annotated[
        tuple[str, ...],
        Key(
            kind=TEXTS,
            secret=True,
            meaning="Patterns of the names of secrets that this host may ask for.",
            reloaded=True,
        ),
    ] = ("*",)


class AwsProvider:
    """Its input is an ARN, ``{"CredentialArn": ARN}`` in either letter case, or a secret's name.

    The end point is AWS' own of the region in the ARN, or `endpoint_url` of the settings; variables
    and files of AWS' own tools do not choose it.
    """

    declared: ClassVar = AwsSettings

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        found = read_table(AwsSettings, settings, "providers.aws")
        self._region = found.region
        self._endpoint = found.endpoint_url
        self._ca_file = found.ca_file
        self._patterns = found.secrets
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Read a secret.

        Raises:
            UsageError: `host-account-input`, `host-account-extra`.
            NotPermittedError: `host-account-not-given`, `host-account-tls`.
            UnreachableError: `host-account-unreachable`, `host-account-timeout`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        wanted = _wanted(plugin_input)
        match = _ARN.fullmatch(wanted)
        if match is None and not _NAME.fullmatch(wanted):
            refuse_input(_WHERE, "the ARN or the name of a secret")
        name = match["name"] if match else wanted
        if not any(fnmatchcase(name, pattern) for pattern in self._patterns):
            raise NotPermittedError.of(
                "host-account-not-given",
                "the secret is not among those of this host",
                where=_WHERE,
                expected=" or ".join(self._patterns) or "no secret at all",
            )
        service = "ssm" if match and not match["s"] else "secretsmanager"
        text = self._text(service, match["region"] if match else self._region, wanted)
        if not isinstance(text, str):
            refuse_answer(_WHERE, "a secret without text")
        return account_from_json(text, _WHERE)

    def share_of(self, plugin_input: str) -> str:
        """Return region and account of an ARN, the path of a name: each may be slow on its own."""
        match = _ARN.fullmatch(_wanted(plugin_input))
        if match is None:
            return plugin_input.rpartition("/")[0]
        return f"{match['region']}:{match['account']}"

    def _text(self, service: str, region: str | None, wanted: str) -> Any:
        boto3 = import_extra("boto3", "aws")
        exceptions = import_extra("botocore.exceptions", "aws")
        deadline = Deadline(self._seconds)
        trusted = None if self._ca_file is None else read_authorities(self._ca_file, _WHERE)
        context = client_context(_WHERE, trusted)
        config = import_extra("botocore.config", "aws").Config(
            connect_timeout=deadline.seconds,
            read_timeout=deadline.seconds,
            retries={"total_max_attempts": 1, "mode": "standard"},
            ignore_configured_endpoint_urls=True,
            proxies={},
        )
        url = None
        if self._endpoint is not None:
            server, path = self._endpoint
            url = f"https://{server}{path}"
        try:
            client = boto3.session.Session().client(
                service, region_name=region, endpoint_url=url, config=config
            )
            asked = HttpsClient(_server_of(client.meta.endpoint_url), context, deadline, _WHERE)
            client.meta.events.register("before-send", botocore_handler(asked))
            if service == "ssm":
                answer = client.get_parameter(Name=wanted, WithDecryption=True)
                return answer["Parameter"]["Value"]
            return client.get_secret_value(SecretId=wanted).get("SecretString")
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:60]
            kind = NotPermittedError if code in _REFUSALS else UnreachableError
            raise kind.of("host-account-not-given", f"AWS says {code}", where=_WHERE) from None
        except exceptions.BotoCoreError as error:
            raise UnreachableError.of(
                "host-account-unreachable",
                type(error).__name__,
                where=_WHERE,
                remedy="look at the host's role, its region and the network path to the end point",
            ) from None


def _server_of(endpoint: str) -> Server:
    """Return the server of an end point that botocore made of a region, or that was configured."""
    found = server_url(endpoint)
    if found is None:
        raise UnreachableError.of(
            "host-account-unreachable", "AWS' library names no end point", where=_WHERE
        )
    return found[0]


def _wanted(given: str) -> str:
    if not given.startswith("{"):
        return given
    try:
        document = json.loads(given)
    except (ValueError, RecursionError):
        document = None
    values = (
        {key.lower(): value for key, value in document.items()}
        if isinstance(document, dict)
        else {}
    )
    arn = values.get("credentialarn")
    if not isinstance(arn, str):
        refuse_input(_WHERE, '{"CredentialArn": "arn:aws:secretsmanager:..."}')
    return arn
