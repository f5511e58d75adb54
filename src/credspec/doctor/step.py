"""What a step of an examination is, and what it may find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from credspec.errors import CredspecError, ExitStatus, Problem

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination


class State(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step found: a line that says so, and what is doubtful about it."""

    text: str
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to look at.

    `name` is stable, `title` is for people, `needs` names the steps without which it makes no
    sense. `run` looks and returns its finding, or raises the `CredspecError` that is the cause.
    `subject` is the account it is about, if it is about one.
    """

    name: str
    title: str
    run: Callable[[Examination], Finding]
    needs: tuple[str, ...] = ()
    subject: str = ""

    @property
    def key(self) -> str:
        """Name and subject, unique in an examination."""
        return f"{self.name} {self.subject}" if self.subject else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a step ended, with the time it took."""

    step: Step
    state: State
    text: str
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0
    exit_status: ExitStatus = field(default=ExitStatus.OK)

    @classmethod
    def of_error(cls, step: Step, error: CredspecError, seconds: float) -> StepResult:
        """Make the result of a step that failed."""
        return cls(
            step=step,
            state=State.FAILED,
            text=error.problems[0].text(),
            problems=error.problems,
            seconds=seconds,
            exit_status=error.exit_status,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as it is printed by ``--output json``."""
        return {
            "step": self.step.name,
            "subject": self.step.subject,
            "title": self.step.title,
            "state": str(self.state),
            "text": self.text,
            "milliseconds": round(self.seconds * 1000, 1),
            "problems": [
                {
                    "code": problem.code,
                    "where": problem.where,
                    "found": problem.found,
                    "expected": problem.expected,
                    "remedy": problem.remedy,
                }
                for problem in self.problems
            ],
        }
