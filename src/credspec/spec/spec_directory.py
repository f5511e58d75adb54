"""The host's directory of credential spec files, which ``file://`` references are relative to.

The rules and texts for paths are the Docker daemon's on Windows (moby,
``daemon/oci_windows.go``). Stricter than there: containment is decided component by component,
no symbolic link below the directory is followed, and only regular files are read.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import unicodedata
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from credspec.errors import CredspecError, InvalidSpecError
from credspec.file_replacement import TEMPORARY, replace_file
from credspec.path_walk import LinkError, open_component, opened_directory
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES, check_size
from credspec.spec.reference import malformed_reference, registry_reference
from credspec.spec.windows_paths import ABSOLUTE_PATH, PATH_OUTSIDE, is_absolute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from credspec.spec.reference import SpecReference

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK the opening of a FIFO would wait for a writer.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MODE: Final = 0o644
_AROUND: Final = " \t\r\n\"'`"
_DOCUMENT_SIGNS: Final = frozenset('{}":')


class SpecExistsError(CredspecError):
    """There is a spec of this name already: `spec-exists`."""


def load(reference: SpecReference, spec_directory: SpecDirectory) -> CredentialSpec:
    """Return the credential spec that a ``file://`` or ``raw://`` reference names.

    Raises:
        InvalidSpecError: as `SpecDirectory.read` and `CredentialSpec.from_bytes`; for the other
            schemes as `credspec.spec.reference.parse_reference`.
    """
    match reference.scheme:
        case "file":
            return _parsed(spec_directory.read(reference.value))
        case "raw":
            return CredentialSpec.from_text(reference.value)
        case "registry":
            raise registry_reference()
        case "config":
            raise malformed_reference()


def components_of(name: str, directory: str) -> list[str]:
    """Return the parts of the path below a directory that ``file://`` `name` means.

    The rules are moby's. A backslash separates parts too: files made for Windows use it.

    Raises:
        InvalidSpecError: ``spec-path-absolute`` or ``spec-path-outside``.
    """
    if posixpath.isabs(name) or is_absolute(name):
        raise InvalidSpecError.of(
            "spec-path-absolute",
            ABSOLUTE_PATH,
            remedy=f"name the file relative to {directory}, such as file://{_last_part(name)}",
        )
    path = posixpath.join(directory, name.replace("\\", "/"))
    relative = posixpath.relpath(posixpath.normpath(path), directory)
    if relative == ".." or relative.startswith("../"):
        raise InvalidSpecError.of("spec-path-outside", PATH_OUTSIDE.format(directory))
    return relative.split("/")


def _last_part(name: str) -> str:
    """Return the file's own name, unless a document stands in its place."""
    leaf = name.replace("\\", "/").rpartition("/")[2].rpartition(":")[2]
    return (
        leaf if leaf and leaf.isprintable() and not _DOCUMENT_SIGNS & set(name[2:]) else "www.json"
    )


@lru_cache(maxsize=256)
def _parsed(data: bytes) -> CredentialSpec:
    """Parse a file once as long as it stays the same, however many containers name it."""
    return CredentialSpec.from_bytes(data)


@dataclass(frozen=True, slots=True)
class SpecDirectory:
    """A directory of credential spec files.

    With `trusted` only what root (or the user of this process) owns and nobody else can write is
    read: the files, the directories in the path, and those that lead to this one.
    """

    path: Path
    trusted: bool = False

    def read(self, name: str) -> bytes:
        """Return the contents of the file that ``file://`` `name` means.

        Raises:
            InvalidSpecError: ``spec-path-absolute``, ``spec-path-outside``, ``spec-path-link``,
                ``spec-path-not-regular``, ``spec-file-unreadable``, ``spec-not-trusted`` or
                ``spec-too-large``. The daemon's text names the container too; that is the
                caller's to add.
        """
        parents, leaf = self._split(name)
        try:
            with self._open_parent(parents) as parent, _open_file(leaf, parent) as file:
                if self.trusted:
                    _check_owner(os.fstat(file), leaf)
                data = _read_regular(file)
        except (OSError, ValueError) as error:
            raise self._load_error(name, error) from None
        check_size(data)
        return data

    def names(self) -> list[str]:
        """Return the sorted names of the regular files in the directory, whatever their ending.

        Raises:
            CredspecError: ``spec-directory-missing`` or ``spec-directory-unreadable``.
        """
        try:
            with os.scandir(self.path) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith(TEMPORARY)
                )
        except (FileNotFoundError, NotADirectoryError):
            raise CredspecError.of(
                "spec-directory-missing",
                f"Credential spec directory does not exist: {self.path}",
                remedy=f"create it with: install -d -m 0755 {self.path}",
            ) from None
        except OSError as error:
            raise CredspecError.of(
                "spec-directory-unreadable",
                f"cannot list credential specs: open {self.path}: {_reason(error)}",
            ) from None

    def write(self, name: str, text: str, *, no_clobber: bool = False) -> Path:
        """Write a file whole or not at all, readable by everyone, and return its path.

        With `no_clobber` a file that exists already stays as it is.

        Raises:
            InvalidSpecError: ``spec-path-absolute``, ``spec-path-outside``, ``spec-encoding`` or
                ``spec-too-large``.
            CredspecError: ``spec-exists``, ``spec-path-link`` or ``spec-file-unwritable``.
        """
        parents, leaf = self._split(name)
        if "\\" in name:
            raise InvalidSpecError.of(
                "spec-path-outside",
                PATH_OUTSIDE.format(posixpath.abspath(self.path)),
                remedy="separate directories with /, not with a backslash",
            )
        data = _encoded(text)
        try:
            with self._open_parent(parents) as parent:
                replace_file(
                    leaf, data, mode=_MODE, dir_fd=parent, no_clobber=no_clobber, durable=True
                )
        except FileExistsError:
            raise SpecExistsError.of(
                "spec-exists",
                f'A credential spec already exists with the name "{name}".',
                remedy="leave out -NoClobber to overwrite it, or choose another name",
            ) from None
        except (OSError, ValueError) as error:
            raise CredspecError.of(
                _CODES.get(type(error), "spec-file-unwritable"),
                f"failed to write credential spec: {self._full(name)}: {_reason(error)}",
            ) from None
        return self.path.joinpath(*parents, leaf)

    def similar(self, name: str) -> str:
        """Return the file that Windows would take a name for, or that it nearly is; or ``""``.

        Names may differ in letter case, in what stands around them, in ``%20`` and the like, and
        in the ending ``.json``.

        Raises:
            InvalidSpecError: ``spec-path-absolute`` or ``spec-path-outside``.
        """
        parents, leaf = self._split(name)
        found: list[str] = []
        for wanted in (*parents, leaf):
            with suppress(OSError, ValueError), self._open_parent(found) as parent:
                present = sorted(os.listdir(parent))  # noqa: PTH208 - of a descriptor
                alike = [entry for entry in present if _likeness(entry) == _likeness(wanted)]
                if wanted in alike:
                    alike = [wanted]
                if alike:
                    found.append(alike[0])
                    continue
            return ""
        return "/".join(found)

    def _full(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.abspath(self.path), name))

    def _shown(self, name: str) -> str:
        """Return the path for messages, which are logged: a document in its place may be secret."""
        return self._full("(a document)" if _DOCUMENT_SIGNS & set(name) else name)

    def _split(self, name: str) -> tuple[list[str], str]:
        """Return the directories below this one and the file name in `name`."""
        *parents, leaf = components_of(name, posixpath.abspath(self.path))
        return parents, leaf

    @contextmanager
    def _open_parent(self, parents: Sequence[str]) -> Iterator[int]:
        if self.trusted:
            for above in self.path.absolute().parents:
                _check_owner(above.stat(), str(above))
        descriptor = os.open(self.path, _DIRECTORY)
        try:
            if self.trusted:
                _check_owner(os.fstat(descriptor), str(self.path))
            check = _check_opened if self.trusted else None
            with opened_directory(descriptor, parents, check=check) as parent:
                yield parent
        finally:
            os.close(descriptor)

    def _load_error(self, name: str, error: OSError | ValueError) -> InvalidSpecError:
        remedy = ""
        if isinstance(error, FileNotFoundError):
            similar = self.similar(name)
            remedy = f"put the file into {posixpath.abspath(self.path)}"
            if similar:
                remedy = (
                    f"did you mean file://{similar}? Every character counts here, and letter case"
                )
        elif isinstance(error, _NotTrustedError):
            remedy = "let root own it and only root write it: chown root, chmod go-w"
        return InvalidSpecError.of(
            _CODES.get(type(error), "spec-file-unreadable"),
            f"failed to load credential spec: open {self._shown(name)}: {_reason(error)}",
            remedy=remedy,
        )


class _NotRegularError(OSError):
    """The path names something else than a file with contents."""


class _NotTrustedError(OSError):
    """Others than root could have written what is to be trusted."""


_CODES: Final[dict[type[Exception], str]] = {
    LinkError: "spec-path-link",
    _NotRegularError: "spec-path-not-regular",
    _NotTrustedError: "spec-not-trusted",
}


@contextmanager
def _open_file(leaf: str, parent: int) -> Iterator[int]:
    descriptor = open_component(leaf, _FILE, parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_opened(descriptor: int, name: str) -> None:
    _check_owner(os.fstat(descriptor), name)


def _check_owner(status: os.stat_result, name: str) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise _NotTrustedError(errno.EPERM, f"{name} belongs to user {status.st_uid}, not to root")
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a directory like /tmp nobody can replace what is another's.
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if others and not sticky:
        raise _NotTrustedError(errno.EPERM, f"{name} can be written by others than root")


def _read_regular(descriptor: int) -> bytes:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise _NotRegularError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise _NotRegularError(errno.EINVAL, "not a regular file")
    data = b""
    while chunk := os.read(descriptor, MAX_SPEC_BYTES + 1 - len(data)):
        data += chunk
    return data


def _encoded(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSpecError.of(
            "spec-encoding",
            f"half of a surrogate pair at position {error.start}",
            expected="Unicode text",
        ) from None
    check_size(data)
    return data


def _likeness(component: str) -> str:
    plain = unquote(component).strip(_AROUND).rstrip(".")
    return unicodedata.normalize("NFC", plain).casefold().removesuffix(".json")


def _reason(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "invalid argument"
    if isinstance(error, LinkError):
        return "symbolic links are not followed"
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]
