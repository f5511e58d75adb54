"""Errors that are kept or handed on refer to nothing that they came through."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from credspec.errors import (
    CredspecError,
    NotPermittedError,
    Problem,
    Step,
    during,
    forget_frames,
    joined,
)


class Secret:
    pass


def fail(known: list[weakref.ref[Secret]]) -> None:
    """Raise an error that is in a circle with its own frame, and led to by another one."""
    secret = Secret()
    known.append(weakref.ref(secret))
    try:
        failure = NotPermittedError.of("x", "y")
        raise failure
    except CredspecError as first:
        second = first
        raise ValueError("led to") from second


def test_forgotten_frames_let_go_of_what_was_in_them() -> None:
    known: list[weakref.ref[Secret]] = []
    gc.disable()
    try:
        with pytest.raises(ValueError, match="led to") as caught:
            fail(known)
        error = caught.value
        assert known[0]() is not None
        forget_frames(error)
        assert known[0]() is None
        assert error.__traceback__ is None
        assert error.__cause__ is not None
        assert error.__cause__.__traceback__ is None
    finally:
        gc.enable()


def test_frames_that_run_stay_as_they_are() -> None:
    local = "here"
    try:
        raise ValueError
    except ValueError as error:
        frame = sys._getframe()
        forget_frames(error)
        assert local == "here"
        assert frame.f_locals["local"] == "here"


def test_a_detached_error_is_the_same_without_its_frames() -> None:
    with pytest.raises(NotPermittedError) as caught:
        raise NotPermittedError.of("code", "found", where="where", remedy="remedy")
    detached = caught.value.detached()
    assert type(detached) is NotPermittedError
    assert detached.problems == caught.value.problems
    assert detached.__traceback__ is None
    assert detached.__context__ is None


@pytest.mark.parametrize("step", list(Step))
def test_an_error_says_at_which_step_it_was_met_wherever_it_is_handed_on(step: Step) -> None:
    with pytest.raises(NotPermittedError) as caught, during(step):
        raise NotPermittedError.of("x", "y")
    error = caught.value
    others = error.with_problems([Problem("z", "other text")])
    joint = joined([error, NotPermittedError.of("a", "b")])
    for each in (error, error.detached(), others, others.detached(), joint, joint.detached()):
        assert each.step is step
        assert type(each) is NotPermittedError
    assert joint.parts[1].step is None


def test_the_innermost_step_counts() -> None:
    """An account's ticket may need the host to log on first."""
    with pytest.raises(CredspecError) as caught, during(Step.ACCOUNT), during(Step.HOST_LOGON):
        raise CredspecError.of("x", "y")
    assert caught.value.step is Step.HOST_LOGON


def test_what_is_no_error_of_credspec_passes_a_step_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), during(Step.ACCOUNT):
        raise ZeroDivisionError
