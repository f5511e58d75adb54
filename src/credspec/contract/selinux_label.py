"""The SELinux label of what is mounted for a container (OCI specification, ``linux.mountLabel``).

Where SELinux enforces, a container may use only what has its label; runc gives it to every tmpfs
that it mounts, and the lease's has it the same way, by the option ``context=`` (mount(8)). Standard
library only.
"""

from __future__ import annotations

import posix

from credspec.contract.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

_FILE_SYSTEMS = ("/sys/fs/selinux", "/selinux")
_XATTR = "security.selinux"
# USER:ROLE:TYPE and a range of levels and categories; nothing that could end the quotes.
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:,")
_FEWEST_PARTS = 3
_MOST_LETTERS = 2048  # with the other options, mount(2) takes one page


def is_enabled() -> bool:
    """Return whether the host uses SELinux; without it, the kernel does not know the option."""
    return any(posix.access(f"{path}/enforce", posix.F_OK) for path in _FILE_SYSTEMS)


def mount_label(config: dict[str, Any]) -> str:
    """Return the label for a container's mounts, empty if there is none or SELinux is off.

    Raises:
        ShimError: `selinux-label`.
    """
    linux = config.get("linux")
    label = linux.get("mountLabel") if isinstance(linux, dict) else None
    if not label or not is_enabled():
        return ""
    if isinstance(label, str) and len(label) <= _MOST_LETTERS and _LETTERS.issuperset(label):
        parts = label.split(":")
        if len(parts) >= _FEWEST_PARTS and all(parts):
            return label
    raise ShimError(
        "selinux-label",
        f"config.json: linux.mountLabel is {str(label)[:80]!r}; expected an SELinux label such "
        "as system_u:object_r:container_file_t:s0:c1,c2",
    )


def mount_option(label: str) -> str:
    """Return the label as the end of a mount's options; its commas need the quotes."""
    return f',context="{label}"' if label else ""


def set_label(directory: str, label: str) -> None:
    """Give a directory that is not mounted the label, which new files in it inherit.

    Raises:
        ShimError: `selinux-label`.
    """
    if not label:
        return
    try:
        posix.setxattr(directory, _XATTR, f"{label}\0".encode(), follow_symlinks=False)
    except OSError as error:
        raise ShimError(
            "selinux-label",
            f"{directory}: cannot have the SELinux label {label} ({error.strerror}); look for the "
            "denial with `ausearch -m avc`",
        ) from None
