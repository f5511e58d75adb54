"""AWS Secrets Manager, and parameters of its Systems Manager."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from credspec.errors import NotPermittedError, UnreachableError
from credspec.providers.answers import account_from_json, refuse_answer, refuse_input
from credspec.providers.extras import import_extra
from credspec.providers.host_account import HostAccount
from credspec.providers.provider_table import ProviderTable

_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:(secretsmanager|ssm):([a-z0-9-]{1,32}):[0-9]{12}:(?:secret:|parameter/)"
    r"([A-Za-z0-9/_+=.@-]{1,1024})"
)
_NAME: Final = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_REFUSALS: Final = frozenset(
    {"AccessDeniedException", "ResourceNotFoundException", "ParameterNotFound"}
)
_WHERE: Final = "provider aws"


class AwsProvider:
    """Its input is an ARN, ``{"CredentialArn": ARN}`` in either letter case, or a secret's name.

    Settings: `region` for names; `endpoint_url` and `ca_file` for private end points; `secrets` are
    patterns of the names that this host may ask for, default all that its role may read.
    """

    def __init__(self, settings: Mapping[str, Any], seconds: float) -> None:
        table = ProviderTable("aws", settings)
        self._region = table.optional_text("region")
        self._endpoint = table.optional_text("endpoint_url")
        self._ca_file = table.optional_path("ca_file")
        self._patterns = table.texts("secrets", ("*",))
        table.close()
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Read a secret.

        Raises:
            UsageError: `host-account-input`, `host-account-extra`.
            NotPermittedError: `host-account-not-given`.
            UnreachableError: `host-account-unreachable`.
            CredspecError: `host-account-answer`, `host-account-invalid`.
        """
        wanted = _wanted(plugin_input)
        match = _ARN.fullmatch(wanted)
        if match is None and not _NAME.fullmatch(wanted):
            refuse_input(_WHERE, "the ARN or the name of a secret")
        service, region, name = match.groups() if match else ("secretsmanager", None, wanted)
        if not any(fnmatchcase(name, pattern) for pattern in self._patterns):
            raise NotPermittedError.of(
                "host-account-not-given",
                "the secret is not among those of this host",
                where=_WHERE,
                expected=" or ".join(self._patterns) or "no secret at all",
            )
        boto3 = import_extra("boto3", "aws")
        exceptions = import_extra("botocore.exceptions", "aws")
        config = import_extra("botocore.config", "aws").Config(
            connect_timeout=self._seconds / 3,
            read_timeout=self._seconds / 3,
            retries={"total_max_attempts": 2, "mode": "standard"},
        )
        try:
            client = boto3.session.Session().client(
                service,
                region_name=region or self._region,
                endpoint_url=self._endpoint,
                verify=str(self._ca_file) if self._ca_file else None,
                config=config,
            )
            if service == "ssm":
                answer = client.get_parameter(Name=wanted, WithDecryption=True)
                text = answer["Parameter"]["Value"]
            else:
                text = client.get_secret_value(SecretId=wanted).get("SecretString")
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:60]
            kind = NotPermittedError if code in _REFUSALS else UnreachableError
            raise kind.of("host-account-not-given", f"AWS says {code}", where=_WHERE) from None
        except exceptions.BotoCoreError as error:
            raise UnreachableError.of(
                "host-account-unreachable",
                type(error).__name__,
                where=_WHERE,
                remedy="look at the host's role, its region and the way to the end point",
            ) from None
        if not isinstance(text, str):
            refuse_answer(_WHERE, "a secret without text")
        return account_from_json(text, _WHERE)


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
