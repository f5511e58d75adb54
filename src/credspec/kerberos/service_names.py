"""Names of services (SPNs) and patterns of them, compared without regard to case.

A name is ``CLASS/HOST[:PORT][@REALM]``. In a pattern ``*`` stands for one whole label of HOST, or
for a PORT; without a port a pattern covers names without one only, without a realm those of any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from credspec.contract.service_names import parts_of

_ANY = "*"


@dataclass(frozen=True, slots=True)
class ServiceName:
    """The name of a service as it was written; equal names differ in case at most."""

    text: str = field(compare=False)
    service_class: str
    host: str
    port: str | None
    realm: str | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the name that a text is, None for other texts and for names of the KDC's own."""
        parts = parts_of(text)
        if parts is None:
            return None
        service_class, host, port, realm = parts
        return cls(
            text,
            service_class.lower(),
            host.lower(),
            None if port is None else port.lower(),
            None if realm is None else realm.upper(),
        )

    def __str__(self) -> str:
        return self.text

    @property
    def spn(self) -> str:
        """The name without its realm, as it was written."""
        return self.text.partition("@")[0]

    @property
    def spellings(self) -> tuple[str, ...]:
        """The SPN as clients look it up: with the host in lower case, and as it was written."""
        service_class, _, rest = self.spn.partition("/")
        host, colon, port = rest.partition(":")
        return tuple(dict.fromkeys((f"{service_class}/{host.lower()}{colon}{port}", self.spn)))


@dataclass(frozen=True, slots=True)
class ServicePattern:
    """A pattern of services' names."""

    text: str = field(compare=False)
    service_class: str
    labels: tuple[str, ...]
    port: str | None
    realm: str | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the pattern that a text is, None for other texts."""
        parts = parts_of(text, is_pattern=True)
        if parts is None:
            return None
        service_class, host, port, realm = parts
        return cls(
            text,
            service_class.lower(),
            tuple(host.lower().split(".")),
            None if port is None else port.lower(),
            None if realm is None else realm.upper(),
        )

    def __str__(self) -> str:
        return self.text

    def covers(self, name: ServiceName, own_realm: str) -> bool:
        """Return whether it covers a name, which is of `own_realm` if it says no other."""
        labels = name.host.split(".")
        return (
            name.service_class == self.service_class
            and len(labels) == len(self.labels)
            and all(map(_is_covered, self.labels, labels))
            and _is_port_covered(self.port, name.port)
            and self.realm in {None, name.realm or own_realm.upper()}
        )


def _is_covered(wanted: str, label: str) -> bool:
    return wanted in {_ANY, label}


def _is_port_covered(wanted: str | None, port: str | None) -> bool:
    if wanted is None or port is None:
        return wanted is port
    return _is_covered(wanted, port)
