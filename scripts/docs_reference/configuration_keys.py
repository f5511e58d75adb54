"""Lists every key of the configuration, as the dataclasses declare them.

See `credspec.config_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from credspec.config.host import TABLES
from credspec.config_table import keys_of
from credspec.doctor.declared_configuration import declared_tables
from credspec.providers.program import ProgramSettings
from credspec.providers.provider_table import ProviderTable

DECLARED = declared_tables()
REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key: its table as in the file, what it takes, and its default as in the file.

    `default_words` says what holds without it where no single value does; `reloaded` is whether a
    reload of the agent takes it over.
    """

    table: str
    name: str
    takes: str
    default: str = ""
    meaning: str = ""
    default_words: str = ""
    reloaded: bool = False

    @property
    def path(self) -> str:
        """Table and name, as error messages have them."""
        return f"{self.table}.{self.name}" if self.table else self.name


def configuration_keys() -> Iterator[Key]:
    """Yield every key, in the order of the file's tables."""
    names = {declared.table.name.partition(".")[0] for declared in DECLARED}
    unread = TABLES - names
    if unread:
        raise ValueError(f"tables that configuration_keys.py does not know: {sorted(unread)}")
    for declared in DECLARED:
        keys = dict(keys_of(declared))
        if declared is ProgramSettings:
            keys |= keys_of(ProviderTable)
        for name, found in keys.items():
            key = found.key
            default = REQUIRED if found.is_required else key.kind.write(found.default)
            yield Key(
                table=declared.table.name,
                name=name,
                takes=key.kind.takes,
                default="" if key.default else default,
                meaning=key.meaning,
                default_words=key.default,
                reloaded=key.reloaded,
            )


def table_meanings() -> Mapping[str, str]:
    """Return what the code says of its tables."""
    return {declared.table.name: declared.table.meaning for declared in DECLARED}
