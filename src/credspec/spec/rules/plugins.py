"""Rules about ``HostAccountConfig``: the plug-in and its input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from credspec.errors import Problem
from credspec.spec.parts import HOST, host_of, text_of
from credspec.spec.rules.rule import FixableRule, Rule, RuleSet

Host = dict[str, Any]
_VERSION: Final = "PortableCcgVersion"
_GUID: Final = "PluginGUID"
_INPUT: Final = "PluginInput"
_SECRET: Final = re.compile(r"(?i)(?:^|[;,\s\"'{])(?:password|passwd|pwd)\s*[=:]")
_ARN: Final = re.compile(r"(?i)arn:aws")
_RANCHER: Final = "e4781092-f116-4b79-b55e-28eb6a224e26"
_AZURE: Final = "ccc2a336-d7f3-4818-a213-272b7924213e"
_TRIPLE: Final = 3  # DOMAIN:ACCOUNT:PASSWORD


class PluginGuidBraces(FixableRule[Host]):
    """The GUID of the plug-in has no braces."""

    code = "lint-plugin-guid-braces"
    reason = "Windows starts a plug-in only by its GUID in braces."

    def check(self, part: Host) -> Iterator[Problem]:
        """Yield a problem for a GUID without both braces."""
        guid = text_of(part, _GUID)
        if guid and not (guid.startswith("{") and guid.endswith("}")):
            found, wanted = repr(guid[:60]), _in_braces(guid)[:60]
            yield Problem(self.code, found, f"{HOST}/{_GUID}", wanted, "add them")

    def fix(self, part: Host) -> str:
        """Add the braces."""
        part[_GUID] = _in_braces(text_of(part, _GUID))
        return f"put {_GUID} into braces"


class CcgVersion(FixableRule[Host]):
    """The version of the plug-in interface is missing, or another than 1."""

    code = "lint-ccg-version"
    reason = "1 is the only version of the plug-in interface."

    def check(self, part: Host) -> Iterator[Problem]:
        """Yield a problem for another text; what is no text is an error of the schema."""
        version = part.get(_VERSION, "")
        if isinstance(version, str) and version != "1":
            found = repr(version[:20]) if version else "missing"
            yield Problem(self.code, found, f"{HOST}/{_VERSION}", '"1"', "set it")

    def is_fixable(self, part: Host) -> bool:
        """Return whether it is missing, another text, or the number 1, which is an error."""
        version = part.get(_VERSION)
        return any(self.check(part)) or (version == 1 and not isinstance(version, bool))

    def fix(self, part: Host) -> str:
        """Set it."""
        part[_VERSION] = "1"
        return f"set {_VERSION}"


class PluginFieldMissing(Rule[Host]):
    """Neither the plug-in nor its input is named."""

    code = "lint-plugin-field-missing"
    reason = "Without it Windows does not know which plug-in to start."

    def check(self, part: Host) -> Iterator[Problem]:
        """Yield a problem for each field if both are missing."""
        if _GUID not in part and _INPUT not in part:
            yield Problem(self.code, "missing", f"{HOST}/{_GUID}")
            yield Problem(self.code, "missing", f"{HOST}/{_INPUT}")


class PluginInputObject(Rule[Host]):
    """The input is an object."""

    code = "lint-plugin-input-object"
    reason = "Kubernetes and Windows hold PluginInput as a string."

    def check(self, part: Host) -> Iterator[Problem]:
        """Yield a problem for an object, which is never quoted: it may hold a secret."""
        if isinstance(part.get(_INPUT), dict):
            yield Problem(
                self.code,
                "an object",
                f"{HOST}/{_INPUT}",
                "a string",
                "AWS on Linux takes the object; for Windows and Kubernetes write it as a string",
            )


class PluginInputForm(Rule[Host]):
    """The input is not what the plug-in with the GUID takes."""

    code = "lint-plugin-input-form"
    reason = "The plug-in with this GUID takes input of another form."

    def check(self, part: Host) -> Iterator[Problem]:
        """Yield a problem for input of another form, which is never quoted."""
        given = part.get(_INPUT)
        if not isinstance(given, str):
            return
        keys = {pair.partition("=")[0].strip().lower() for pair in given.split(";")}
        forms = {
            _RANCHER: (given.count(":") == 1, "NAMESPACE:SECRET"),
            _AZURE: ({"objectid", "secreturi"} <= keys, "ObjectId=...;SecretUri=..."),
        }
        fits, form = forms.get(text_of(part, _GUID).strip("{}").lower(), (True, ""))
        if not fits:
            yield Problem(self.code, "input of another form", f"{HOST}/{_INPUT}", form)


class PluginInputSecret(Rule[Host]):
    """The input holds a password."""

    code = "lint-plugin-input-secret"
    reason = "A credential spec is no place for a password."

    def check(self, part: Host) -> Iterator[Problem]:
        """Yield a problem for what looks like a password, which is never quoted."""
        given = part.get(_INPUT)
        if not isinstance(given, str) or _ARN.match(given):
            return
        fields = given.split(":")
        is_triple = len(fields) == _TRIPLE and all(fields) and "//" not in given
        if is_triple or _SECRET.search(given):
            yield Problem(
                self.code,
                "what looks like a password in clear text",
                f"{HOST}/{_INPUT}",
                "a reference to where the secret is kept",
                "everybody who can read the spec can read it: change the password, and use a "
                "plug-in that fetches it",
            )


def _in_braces(guid: str) -> str:
    return "{" + guid.strip("{}") + "}"


def _hosts(spec: dict[str, Any]) -> Iterator[Host]:
    host = host_of(spec)
    if host is not None:
        yield host


PLUGIN: Final = RuleSet(
    _hosts,
    (
        PluginGuidBraces(),
        CcgVersion(),
        PluginFieldMissing(),
        PluginInputObject(),
        PluginInputForm(),
        PluginInputSecret(),
    ),
)
