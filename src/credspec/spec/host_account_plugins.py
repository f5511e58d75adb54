"""Known plug-ins of ``HostAccountConfig``: where a host outside the domain gets its account from.

The class identifiers are those their makers publish; the forms of the input are checked, its
content is the plug-in's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from credspec.errors import UsageError
from credspec.spec.document import HostAccountConfig

CREDSPEC_PLUGIN_GUID: Final = "{5B7C3A52-5D0B-4C55-9C5E-6F2B7D1E9A40}"
"""The plug-in of credspec itself; its input is ``PROVIDER:INPUT``."""

PORTABLE_CCG_VERSION: Final = "1"
_BRACED: Final = re.compile(r"\{[^{}\s]{1,100}\}")
_PLACE: Final = r"[a-z0-9-]{1,32}:[0-9]{1,12}"
_ARN: Final = re.compile(
    rf"arn:aws[a-z-]{{0,20}}:(?:secretsmanager:{_PLACE}:secret:|ssm:{_PLACE}:parameter/)"
    r"[A-Za-z0-9/_+=.@-]{1,1024}"
)
_SECRET_URI: Final = re.compile(
    r"https://[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,10}"
    r"/secrets/[0-9A-Za-z-]{1,127}(?:/[0-9A-Za-z]{1,64})?/?"
)
_SECRET_NAME: Final = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_PROVIDER: Final = re.compile(r"[a-z][a-z0-9-]{0,31}:.+", re.DOTALL)
_NAMESPACE_AND_SECRET: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
)


class Plugin(NamedTuple):
    """A plug-in: its `guid` in braces, its published name, and the form of its input."""

    guid: str
    name: str
    input_form: str
    read_input: Callable[[str], str | dict[str, Any] | None]


def _namespace_and_secret(text: str) -> str | None:
    return text if _NAMESPACE_AND_SECRET.fullmatch(text) else None


def _object_id_and_secret_uri(text: str) -> str | None:
    pairs = {key.strip().lower(): value for key, _, value in map(_pair, text.split(";"))}
    complete = bool(pairs.get("objectid")) and _SECRET_URI.fullmatch(pairs.get("secreturi", ""))
    return text if complete and len(pairs) == len({"objectid", "secreturi"}) else None


def _pair(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _credential_arn(text: str) -> dict[str, Any] | None:
    return {"CredentialArn": text} if _ARN.fullmatch(text) else None


def _credential_arn_text(text: str) -> str | None:
    return json.dumps({"credentialArn": text}) if _ARN.fullmatch(text) else None


def _secret_name(text: str) -> str | None:
    return text if _SECRET_NAME.fullmatch(text) else None


def _provider(text: str) -> str | None:
    return text if _PROVIDER.fullmatch(text) else None


_AWS_GUID: Final = "{859E1386-BDB4-49E8-85C7-3070B13920E1}"

PLUGINS: Final = {
    "rancher": Plugin(
        "{e4781092-f116-4b79-b55e-28eb6a224e26}",
        "Rancher account provider",
        "NAMESPACE:SECRET",
        _namespace_and_secret,
    ),
    "azure-key-vault": Plugin(
        "{CCC2A336-D7F3-4818-A213-272B7924213E}",
        "Azure Key Vault",
        "ObjectId=ID;SecretUri=https://...",
        _object_id_and_secret_uri,
    ),
    "aws": Plugin(
        _AWS_GUID, "AWS secret (Linux hosts)", "arn:aws:secretsmanager:...", _credential_arn
    ),
    "aws-windows": Plugin(
        _AWS_GUID, "AWS secret (Windows hosts)", "arn:aws:...", _credential_arn_text
    ),
    "aws-secret-name": Plugin(
        _AWS_GUID, "AWS secret (by its name)", "prod/ad-credentials", _secret_name
    ),
    "credspec": Plugin(
        CREDSPEC_PLUGIN_GUID,
        "credspec",
        "PROVIDER:INPUT, such as keytab:reader.keytab",
        _provider,
    ),
}
"""The plug-ins by the names that ``--host-account`` takes."""


def plugin_name(guid: str) -> str | None:
    """Return the published name of the plug-in with a GUID, in any letter case; None if unknown."""
    wanted = guid.strip("{}").lower()
    found = [plugin for plugin in PLUGINS.values() if plugin.guid.strip("{}").lower() == wanted]
    return found[0].name.partition(" (")[0] if found else None


def host_account_config(text: str) -> HostAccountConfig:
    """Read ``PLUGIN=INPUT``, where PLUGIN is a name of `PLUGINS` or any GUID in braces.

    Raises:
        UsageError: `host-account-plugin`, `host-account-input`; the input is never quoted, since
            it may hold a secret.
    """
    name, equals, given = text.partition("=")
    plugin = PLUGINS.get(name.lower())
    if plugin is None and _BRACED.fullmatch(name) and equals:
        return _config(name, given)
    if plugin is None or not equals:
        raise UsageError.of(
            "host-account-plugin",
            f"{name[:80]!r} is not the name of a plug-in" if equals else "no = in it",
            where="host account",
            expected=f"PLUGIN=INPUT with PLUGIN one of {', '.join(PLUGINS)}, or a GUID in braces",
        )
    read = plugin.read_input(given)
    if read is None:
        raise UsageError.of(
            "host-account-input",
            f"the input is not what {plugin.name} takes",
            where="host account",
            expected=f"{name}={plugin.input_form}",
        )
    return _config(plugin.guid, read)


def _config(guid: str, plugin_input: str | dict[str, Any]) -> HostAccountConfig:
    return HostAccountConfig(
        portable_ccg_version=PORTABLE_CCG_VERSION, plugin_guid=guid, plugin_input=plugin_input
    )
