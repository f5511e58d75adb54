"""The gateway's note of what a client asked for, which is kept with the container."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final

from credspec.contract.names import MOUNT_POINT
from credspec.contract.ticket_options import ANNOTATIONS, VARIABLES
from credspec.errors import CredspecError
from credspec.gateway.lease_variables import is_lease_variable
from credspec.spec.reference import parse_security_options

_PART: Final = 200
_CARRIED: Final = "\0"  # at the end of a text in a record: the value of the carried spec


@dataclass(frozen=True, slots=True)
class Record:
    """What must be known in addition to the settings to restore them as requested.

    `security_options` are those that name a spec, by their index; `annotations` and `tmpfs` those
    requested of credspec's; `added` the names of variables that the gateway set, `dropped` the
    entries of the environment, by their index, that it took out.
    """

    security_options: tuple[tuple[int, str], ...]
    runtime: str
    annotations: dict[str, str]
    tmpfs: dict[str, str]
    added: tuple[str, ...]
    dropped: tuple[tuple[int, str], ...]

    def encode(self, spec: str) -> str:
        """Return it as base64url, without repeating the carried spec.

        It is safe in a path; slashes divide it, since a file name has at most 255 bytes.
        """
        document = {
            "SecurityOpt": [(i, _shortened(text, spec)) for i, text in self.security_options],
            "Runtime": self.runtime,
            "Annotations": {k: _shortened(v, spec) for k, v in self.annotations.items()},
            "Tmpfs": self.tmpfs,
            "added": self.added,
            "dropped": [(i, _shortened(text, spec)) for i, text in self.dropped],
        }
        present = {key: value for key, value in document.items() if value}
        text = json.dumps(present, separators=(",", ":"))
        encoded = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return "/".join(encoded[i : i + _PART] for i in range(0, len(encoded), _PART))

    @classmethod
    def decode(cls, text: str, spec: str) -> Record | None:
        """Read one of a container that carries a spec; None if it is not of the gateway's making.

        Whatever it says, only names of credspec's can be hidden or shown by it.
        """
        try:
            joined = text.replace("/", "")
            padded = joined + "=" * (-len(joined) % 4)
            found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            annotations = _texts(found.get("Annotations", {}))
            record = cls(
                _indexed(found.get("SecurityOpt", []), spec),
                str(found.get("Runtime", "")),
                {k: _lengthened(v, spec) for k, v in annotations.items()},
                _texts(found.get("Tmpfs", {})),
                tuple(map(str, found.get("added", []))),
                _indexed(found.get("dropped", []), spec),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return record if record.is_ours() else None

    def is_ours(self) -> bool:
        """Return whether nothing is in it that the gateway would not change."""
        names = (*self.added, *(name_of(entry) for _, entry in self.dropped))
        return (
            all(names_a_spec(option) for _, option in self.security_options)
            and set(self.annotations) <= set(ANNOTATIONS)
            and all(is_lease_mount(target) for target in self.tmpfs)
            and all(name in VARIABLES or is_lease_variable(name) for name in names)
        )


def name_of(entry: str) -> str:
    """Return the name of a variable."""
    return entry.partition("=")[0]


def is_lease_mount(target: str) -> bool:
    """Return whether a tmpfs is the one of the tickets, or one that names an option of them."""
    return target == MOUNT_POINT or (target.startswith(f"{MOUNT_POINT}/") and "=" in target)


def names_a_spec(option: str) -> bool:
    """Return whether a security option is the one for credential specs."""
    try:
        return parse_security_options([option])[0] is not None
    except CredspecError:
        return False


def _shortened(text: str, spec: str) -> str:
    """Return a text without the value of the spec at its end."""
    value = spec.partition("://")[2]
    return text.removesuffix(value) + _CARRIED if value and text.endswith(value) else text


def _lengthened(text: str, spec: str) -> str:
    value = spec.partition("://")[2]
    return text.removesuffix(_CARRIED) + value if text.endswith(_CARRIED) else text


def _indexed(found: Any, spec: str) -> tuple[tuple[int, str], ...]:
    return tuple((max(0, int(index)), _lengthened(str(text), spec)) for index, text in found)


def _texts(found: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items() if value is not None}
