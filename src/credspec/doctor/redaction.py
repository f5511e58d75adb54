"""What may leave a host: configuration without secrets, and texts without what was left out."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from credspec.config_table import NAME_FORM, keys_of
from credspec.doctor.declared_configuration import declared_tables

REDACTED: Final = "<redacted>"
_LEAST_LENGTH: Final = 6  # shorter values are left out as well, but not looked for elsewhere
_LONG: Final = 16
_MOST_LOOKED_AT, _MOST_PARTS, _LEAST_PART = 4096, 16, 8
_SEPARATOR: Final = re.compile(r"[:=]|//")
_BETWEEN: Final = re.compile(r"[\s\"'{}\[\],:;=\\]+")
_WORDS: Final = frozenset(
    {"ActiveDirectory", "CmsPlugins", "DomainJoinConfig", "ActiveDirectoryConfig", "PluginInput"}
    | {"GroupManagedServiceAccounts", "HostAccountConfig", "PluginGUID", "PortableCcgVersion"}
    | {"MachineAccountName", "DnsTreeName", "DnsName", "NetBiosName"}
)
_SECRET_NAMES: Final = re.compile(
    r"PASS|PWD|SECRET|TOKEN|KEY|CRED|AUTH|COOKIE|PROXY", re.IGNORECASE
)
_PATTERNS: Final = (
    (re.compile(r"raw://\S+"), f"raw://{REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL), REDACTED),
    (re.compile(r"(?<=://)[^/\s\"'@]+@"), f"{REDACTED}@"),
    (
        re.compile(r"(?i)\b(password|passwd|pwd|secret|token)(\"?\s*[=:]\s*)\"?[^\s\",;]+"),
        r"\1\2" + REDACTED,
    ),
)
Forms: TypeAlias = Mapping[str, re.Pattern[str]]
"""By a key of the configuration the form that a text must have to be shown."""


@cache
def _shown_forms() -> Mapping[str, Forms]:
    """Return by table the keys whose values are shown; all providers' tables have the same."""
    forms: dict[str, dict[str, re.Pattern[str]]] = {}
    secret = set()
    for declared in declared_tables():
        table = declared.table.name.partition(".")[0]
        for name, found in keys_of(declared).items():
            forms.setdefault(table, {}).setdefault(name, found.key.kind.form)
            if found.key.secret:
                secret.add((table, name))
    for table, name in secret:
        del forms[table][name]
    return forms


class Redactor:
    """Leaves secrets out, and takes what was left out from every other text as well."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def learn(self, value: object) -> None:
        """Remember all strings in a value, also as JSON, URLs and base64 write them."""
        for text in _strings(value):
            self._learn(text)
            # A document within a string, such as a plug-in's input, or one that cannot be parsed.
            for part in _BETWEEN.split(text):
                if _looks_made(part):
                    self._learn(part)
            # USER:PASSWORD, NAME=PASSWORD, https://USER:PASSWORD@HOST: what is behind a separator,
            # to the end or to the last @.
            for separator in list(_SEPARATOR.finditer(text[:_MOST_LOOKED_AT]))[:_MOST_PARTS]:
                rest = text[separator.end() :]
                for part in (rest, rest.rpartition("@")[0]):
                    if len(part.strip()) >= _LEAST_PART:
                        self._learn(part)

    def _learn(self, text: str) -> None:
        for form in {text, text.strip()}:
            if len(form.strip()) < _LEAST_LENGTH:
                continue
            data = form.encode("utf-8", "surrogatepass")
            self._secrets |= {form, json.dumps(form)[1:-1], quote(data), quote(data, safe="")}
            self._secrets |= {base64.b64encode(data).decode().rstrip("="), data.hex()}

    def learn_environment(self, environment: Mapping[str, str]) -> None:
        """Remember the values of variables whose names sound like secrets, or may hold a spec."""
        for name, value in environment.items():
            if _SECRET_NAMES.search(name) and not _is_path(value):
                self.learn(value)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, REDACTED)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each) for each in value]
        return value

    def without(self, value: Any, known: Collection[str]) -> Any:
        """Return a document's strings but those that are `known` (case-folded, without ``$``)."""
        if isinstance(value, Mapping):
            pairs = ((self.without(k, known), self.without(v, known)) for k, v in value.items())
            return [each for pair in pairs for each in pair]
        if isinstance(value, list):
            return [self.without(each, known) for each in value]
        is_known = isinstance(value, str) and value.rstrip("$").casefold() in known
        return "" if is_known or value in _WORDS else value

    def configuration(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with the values that are no secrets; the others are learnt."""
        shown: dict[str, Any] = {}
        tables = _shown_forms()
        for key, value in document.items():
            if isinstance(value, dict) and key in tables:
                shown[key] = self._table(tables[key], value)
            else:
                shown |= self._table(tables[""], {key: value})
        return shown

    def _table(self, forms: Forms, table: Mapping[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        unknown = 0
        for key, value in table.items():
            if isinstance(value, dict) and key in forms:
                names = {each: self._shown(NAME_FORM, each) for each in value}
                shown[key] = {names[each]: self._shown(forms[key], value[each]) for each in value}
            elif isinstance(value, dict) and NAME_FORM.fullmatch(key):
                shown[key] = self._table(forms, value)
            elif key in forms:
                shown[key] = self._shown(forms[key], value)
            else:
                self.learn([key, value])
                unknown += 1
        return shown | ({f"{REDACTED}: other keys": unknown} if unknown else {})

    def _shown(self, form: re.Pattern[str], value: Any) -> Any:
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, list):
            return [self._shown(form, each) for each in value]
        if isinstance(value, str) and form.fullmatch(value):
            return value
        self.learn(value)
        return REDACTED


def _is_path(text: str) -> bool:
    try:
        return text.startswith("/") and os.path.exists(text)  # noqa: PTH110
    except ValueError:
        return False


def _looks_made(part: str) -> bool:
    """Return whether a part of a text may be a secret: it is long, or no word of a language."""
    mixed = any(each.isdigit() for each in part) or not (part.islower() or part.istitle())
    return len(part) >= _LONG or (len(part) >= _LEAST_LENGTH and mixed and part not in _WORDS)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
