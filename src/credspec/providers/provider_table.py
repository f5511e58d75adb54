"""A provider's own table in the configuration, read key by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from credspec.errors import UsageError
from credspec.providers.https import Server, server_url


class ProviderTable:
    """The table ``[providers.NAME]``; keys that are unread when it is closed are an error.

    Every call raises UsageError: `config-wrong-value`, `config-unknown-key`.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.where = f"configuration: providers.{name}"
        # The plug-in's own class identifier is for the selection.
        self._values = {key: value for key, value in values.items() if key != "guid"}

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; without `default` it must be there."""
        found = self.optional_text(key)
        if found is None:
            found = default
        if found is None:
            raise self._wrong(key, "a text")
        return found

    def optional_text(self, key: str) -> str | None:
        """Return a text, None if there is none."""
        value = self._values.pop(key, None)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            raise self._wrong(key, "a text")
        return value

    def path(self, key: str, default: str | None = None) -> Path:
        """Return an absolute path; without `default` it must be there."""
        path = Path(self.text(key, default))
        if not path.is_absolute():
            raise self._wrong(key, "an absolute path")
        return path

    def optional_path(self, key: str) -> Path | None:
        """Return an absolute path, None if there is none."""
        return self.path(key) if key in self._values else None

    def server(self, key: str) -> tuple[Server, str]:
        """Return the server and the path of a URL that must be there."""
        found = server_url(self.text(key))
        if found is None:
            raise self._wrong(key, "a URL such as https://vault.contoso.com:8200")
        return found

    def optional_server(self, key: str) -> tuple[Server, str] | None:
        """Return the server and the path of a URL, None if there is none."""
        return self.server(key) if key in self._values else None

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._values.pop(key, list(default))
        if not isinstance(value, list) or not all(
            isinstance(text, str) and "\0" not in text for text in value
        ):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def choice(self, key: str, *choices: str) -> str:
        """Return one of several texts, by default the first."""
        value = self.text(key, choices[0])
        if value not in choices:
            raise self._wrong(key, " or ".join(choices))
        return value

    def close(self) -> None:
        """Refuse keys that were not read."""
        if self._values:
            raise UsageError.of(
                "config-unknown-key", "unknown key", where=f"{self.where}.{min(self._values)}"
            )

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Refuse the value of a key."""
        raise self._wrong(key, expected)

    def _wrong(self, key: str, expected: str) -> UsageError:
        return UsageError.of(
            "config-wrong-value",
            "missing, or of another kind",
            where=f"{self.where}.{key}",
            expected=expected,
        )
