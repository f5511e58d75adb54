"""What goes wrong, in the same words for the command line, the API and ``docker run``.

A `Problem` is one thing that is wrong; a `CredspecError` carries one or more of them and the class
of failure, which decides the exit status and the HTTP status. Codes are stable: scripts may rely
on them. This is the one module that every package may import.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class ExitStatus(IntEnum):
    """Exit status of every command, by class of failure."""

    OK = 0
    OTHER = 1
    USAGE = 2
    INVALID_SPEC = 3
    UNREACHABLE = 4
    NOT_PERMITTED = 5
    AGENT_UNREACHABLE = 6
    # Of `credspec run` only, as shells have it.
    PROGRAM_NOT_EXECUTABLE = 126
    PROGRAM_NOT_FOUND = 127


class Step(Enum):
    """What is done for a lease, as far as it matters which of them failed."""

    HOST_LOGON = "host logon"
    """The host, or the account that it was given, logs on."""
    ACCOUNT = "account"
    """A ticket of one of the spec's accounts is requested."""


# Not a dataclass: that would cost every command the import of inspect.
class Problem(NamedTuple):
    """One thing that is wrong.

    `code` is the stable name of the problem, such as ``spec-not-json``. `where` is the JSON pointer
    of a field, a path, or the step that failed, and may be empty. `found` says what is there,
    `expected` what should be, `remedy` what to do next; the last two may be empty.
    """

    code: str
    found: str
    where: str = ""
    expected: str = ""
    remedy: str = ""

    def text(self) -> str:
        """Return the problem as one line without its code."""
        parts = [f"{self.where}: {self.found}" if self.where else self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.remedy:
            parts.append(self.remedy)
        return _one_line("; ".join(parts))


class CredspecError(Exception):
    """Base of every error that credspec reports on purpose.

    Holds at least one `Problem`. ``str(error)`` is the text for people: one line a problem, each
    ending in its code in brackets. `retry_after` is in how many seconds to try again what may go
    better then, None if the agent says no such thing.
    """

    kind: ClassVar[str] = "error"
    exit_status: ClassVar[ExitStatus] = ExitStatus.OTHER
    http_status: ClassVar[int] = 500
    parts: tuple[CredspecError, ...] = ()
    """The errors that `joined` made this one of, none if it is a single one."""
    retry_after: int | None = None
    response_status: int | None = None
    """The HTTP status of the agent's answer, None of an error that the agent did not send."""
    step: Step | None = None
    """What was being done for a lease, where that was said; see `during`."""

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise ValueError("an error needs at least one problem")
        self.problems: Final = problems
        super().__init__("\n".join(f"{p.text()} [{p.code}]" for p in problems))

    @classmethod
    def of(
        cls, code: str, found: str, *, where: str = "", expected: str = "", remedy: str = ""
    ) -> Self:
        """Make an error of this class with a single problem."""
        return cls(Problem(code=code, found=found, where=where, expected=expected, remedy=remedy))

    def detached(self) -> Self:
        """Return the same error without the frames it came through, which may hold secrets.

        An error that is kept, or handed from one thread or task to another, must be such a one.
        """
        copy = self.with_problems(self.problems)
        copy.parts = tuple(part.detached() for part in self.parts)
        return copy

    def with_problems(self, problems: Iterable[Problem]) -> Self:
        """Return an error of the same class and step with other problems."""
        copy = type(self)(*problems)
        copy.step = self.step
        return copy

    @property
    def code(self) -> str:
        """The code of the first problem."""
        return self.problems[0].code

    def to_json(self) -> dict[str, Any]:
        """Return the error as an RFC 9457 problem document (``application/problem+json``)."""
        return {
            "type": f"urn:credspec:error:{self.code}",
            "title": self.kind,
            "status": self.http_status,
            "detail": str(self),
            "problems": [p._asdict() for p in self.problems],
        }

    @staticmethod
    def from_json(document: dict[str, Any]) -> CredspecError:
        """Rebuild an error from `to_json`'s document; an unknown kind becomes the base class."""
        cls = _KINDS.get(str(document.get("title")), CredspecError)
        fields = ("code", "found", "where", "expected", "remedy")
        problems = [
            Problem(**{name: str(raw.get(name, "")) for name in fields})
            for raw in document.get("problems") or []
            if isinstance(raw, dict)
        ]
        if not problems:
            problems = [Problem(code="unknown", found=str(document.get("detail", "unknown error")))]
        return cls(*problems)


@contextmanager
def during(step: Step) -> Iterator[None]:
    """Let the errors of a block say at which step they were met, unless a step in it said so."""
    try:
        yield
    except CredspecError as error:
        error.step = error.step or step
        raise


class UsageError(CredspecError):
    """A command, a configuration or an API request is not well formed."""

    kind = "usage"
    exit_status = ExitStatus.USAGE
    http_status = 400


class InvalidSpecError(CredspecError):
    """A credential spec, or the reference to one, cannot be used."""

    kind = "invalid-spec"
    exit_status = ExitStatus.INVALID_SPEC
    http_status = 422


class UnreachableError(CredspecError):
    """No domain controller answered in time, or DNS could not name one."""

    kind = "unreachable"
    exit_status = ExitStatus.UNREACHABLE
    http_status = 503


class PermanentFaultError(CredspecError):
    """An account, a secret or the host is set up wrongly, until somebody corrects it."""


class NoAnswerError(UnreachableError):
    """A server that is there does not answer, or not now: another question would wait as long."""


class NotPermittedError(CredspecError):
    """The directory, the KDC or this host's policy refused."""

    kind = "not-permitted"
    exit_status = ExitStatus.NOT_PERMITTED
    http_status = 403


class TlsTrustError(UnreachableError):
    """A controller's certificate, or what should vouch for it, is not as it must be."""


class CertificateTimeError(TlsTrustError):
    """A certificate is not valid at this host's time."""


class TransientRefusalError(NotPermittedError):
    """A refusal that the next attempt may not meet, without anybody's doing."""


class ClockRefusalError(TransientRefusalError):
    """A refusal that is due to clocks, which are synchronised without anybody asking for it."""


class AgentUnreachableError(CredspecError):
    """The host agent does not answer on its socket."""

    kind = "agent-unreachable"
    exit_status = ExitStatus.AGENT_UNREACHABLE
    http_status = 503


class AgentNotPermittedError(NotPermittedError):
    """This user may not connect to the agent's socket."""


class TooManyRequestsError(CredspecError):
    """A caller has, or asks for, more than its share; `retry_after` is in seconds."""

    kind = "too-many-requests"
    http_status = 429
    retry_after: int = 1


class QuotaExceededError(TooManyRequestsError):
    """A caller has as much as it may have: waiting makes it no less."""


class NotFoundError(CredspecError):
    """The thing asked for does not exist."""

    kind = "not-found"
    http_status = 404


def joined(errors: Sequence[CredspecError]) -> CredspecError:
    """Return one error with all problems of several, each once.

    It has the class of the first, but of the first that is no `UnreachableError` if there is one:
    a refusal of one is no outage, whatever the others met. `parts` of it are the errors themselves,
    without the frames they came through.
    """
    decisive = next((e for e in errors if not isinstance(e, UnreachableError)), errors[0])
    error = decisive.with_problems(dict.fromkeys(p for each in errors for p in each.problems))
    error.parts = tuple(part.detached() for each in errors for part in each.parts or (each,))
    return error


def forget_frames(error: BaseException) -> None:
    """Drop the local variables of the frames that an error came through, and of what led to it.

    Frames are kept by the error, often in a circle, and what is in them may be secret. To be called
    where all of them have ended but those that run, such as at the end of a thread's work; the
    error has no traceback then.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        pending += [each.__cause__, each.__context__]
        step = each.__traceback__
        while step is not None:
            with suppress(RuntimeError):  # it still runs
                step.tb_frame.clear()
            step = step.tb_next
        each.__traceback__ = None


def internal_error(error: Exception, where: str) -> CredspecError:
    """Return the error for a bug in credspec: only its kind, since its text may hold anything."""
    return CredspecError.of(
        "internal-error",
        f"internal error in credspec ({type(error).__name__})",
        where=where,
        remedy="report it, with what the agent logged",
    )


_KINDS: Final = {
    cls.kind: cls
    for cls in (
        UsageError,
        InvalidSpecError,
        UnreachableError,
        NotPermittedError,
        AgentUnreachableError,
        NotFoundError,
        TooManyRequestsError,
    )
}


def _one_line(text: str) -> str:
    """Replace control characters: hostile input must not forge lines of a log or terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
