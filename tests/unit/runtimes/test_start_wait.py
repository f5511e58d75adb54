"""How long a start waits, and for what; time passes only where the test lets it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.runtimes.shim import ShimError
from credspec.runtimes.start_wait import NotYetError, StartWait, with_time

NOT_YET = "credspec agent: not reachable at /s (x); start it [agent-unreachable]"


class Time:
    """A clock that moves when somebody sleeps, and by `cost` with each attempt."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now, self.cost = 1000.0, cost
        self.attempts: list[float] = []
        self.said: list[str] = []

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def attempt(self, outcomes: Callable[[int], object]) -> Callable[[], object]:
        def call() -> object:
            self.attempts.append(self.now - 1000.0)
            self.now += self.cost
            outcome = outcomes(len(self.attempts))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return call

    def wait(self, seconds: float, seed: int = 0, **options: object) -> StartWait:
        return StartWait(
            seconds,
            self.said.append,
            clock=lambda: self.now,
            sleep=self.sleep,
            spread=random.Random(seed).uniform,
            **options,  # type: ignore[arg-type]
        )


@given(
    st.floats(0, 3600),
    st.floats(0, 70),
    st.floats(0, 60),
    st.integers(0, 2**32),
)
def test_no_attempt_begins_after_the_time_and_the_last_error_stays(
    seconds: float, cost: float, retry_after: float, seed: int
) -> None:
    time = Time(cost)
    with pytest.raises(NotYetError, match="agent-unreachable"):
        time.wait(seconds, seed).run(time.attempt(lambda _: NotYetError(NOT_YET, retry_after)))
    assert time.attempts[0] == 0
    assert time.attempts[-1] <= seconds + 1e-6
    assert len(time.said) == (1 if len(time.attempts) > 1 else 0)


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_it_goes_on_as_soon_as_it_can(failures: int, seed: int) -> None:
    time = Time()
    wait = time.wait(3600, seed)
    found = wait.run(time.attempt(lambda n: "ticket" if n > failures else NotYetError(NOT_YET)))
    assert found == "ticket"
    assert len(time.attempts) == failures + 1
    assert wait.waited == pytest.approx(time.attempts[-1])
    pauses = [b - a for a, b in zip(time.attempts, time.attempts[1:], strict=False)]
    assert max(pauses) <= 6


def test_a_refusal_is_not_waited_for_at_any_time() -> None:
    for at in (1, 4):
        time = Time()
        refusal = ShimError("policy: no [policy-account]")
        with pytest.raises(ShimError) as caught:
            time.wait(60).run(
                time.attempt(lambda n, at=at, r=refusal: r if n == at else NotYetError(NOT_YET))
            )
        assert caught.value is refusal
        assert len(time.attempts) == at


def test_without_time_there_is_one_attempt_and_no_word() -> None:
    time = Time()
    with pytest.raises(NotYetError):
        time.wait(0).run(time.attempt(lambda _: NotYetError(NOT_YET)))
    assert (len(time.attempts), time.said) == (1, [])


def test_what_is_waited_for_is_one_line_whatever_is_in_it() -> None:
    time = Time()
    reasons = NotYetError(f"two\nlines\r{'x' * 5000} [dns-unreachable]")
    with pytest.raises(NotYetError):
        time.wait(20).run(time.attempt(lambda _: reasons))
    (line,) = time.said
    assert line.startswith("waiting for up to 20 s: two lines x")
    assert line.isprintable()
    assert len(line) < 600


def test_a_start_that_nobody_waits_for_ends() -> None:
    time = Time()
    wait = time.wait(60, is_wanted=lambda: time.now < 1010)
    with pytest.raises(ShimError, match=r"waited for 1\d s \[start-abandoned\]"):
        wait.run(time.attempt(lambda _: NotYetError(NOT_YET)))


def test_a_hundred_that_start_together_ask_at_times_of_their_own() -> None:
    asked: list[float] = []
    for seed in range(100):
        time = Time()
        with pytest.raises(NotYetError):
            time.wait(30, seed).run(time.attempt(lambda _: NotYetError(NOT_YET)))
        asked += time.attempts[1:]
    seconds = [sum(int(at) == second for at in asked) for second in range(31)]
    assert max(seconds[3:]) <= 100
    # The end of the time is no appointment either.
    assert sum(at > 29.9 for at in asked) <= 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b [agent-timeout]", "a: b; waited for 3 s [agent-timeout]"),
        ("a [x]\nb: c; see [policy] [y-z]", "a [x]\nb: c; see [policy]; waited for 3 s [y-z]"),
        ("no code under [policy] there", "no code under [policy] there; waited for 3 s"),
    ],
)
def test_the_code_stays_at_the_end(text: str, expected: str) -> None:
    assert with_time(text, 3.2) == expected
    assert with_time(text, 0) == text
