from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.lab.retry import ATTEMPTS, retry


class Flaky:
    """Fails some times, then answers; keeps in order what was done to it."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: list[str] = []
        self.waits: list[float] = []

    def call(self) -> int:
        self.calls.append("call")
        if self.calls.count("call") <= self.failures:
            raise CredspecError.of("test", f"failure {self.calls.count('call')}")
        return self.calls.count("call")

    def between(self) -> None:
        self.calls.append("between")

    def sleep(self, seconds: float) -> None:
        self.calls.append("sleep")
        self.waits.append(seconds)


@given(st.integers(0, ATTEMPTS - 1), st.randoms(use_true_random=False))
def test_what_works_in_the_end_is_returned(failures: int, random) -> None:
    flaky = Flaky(failures)
    found = retry(flaky.call, between=flaky.between, sleep=flaky.sleep, uniform=random.uniform)
    assert found == failures + 1
    assert flaky.calls == ["call", *(["sleep", "between", "call"] * failures)]
    bounds = [(0.5, 1), (1, 2), (2, 4), (4, 8), (5, 10)]
    for seconds, (shortest, longest) in zip(flaky.waits, bounds, strict=False):
        assert shortest <= seconds <= longest


@given(st.integers(1, 20), st.randoms(use_true_random=False))
def test_it_ends_with_the_last_failure(attempts: int, random) -> None:
    flaky = Flaky(100)
    with pytest.raises(CredspecError, match=rf"failure {attempts}\b"):
        retry(flaky.call, attempts=attempts, sleep=flaky.sleep, uniform=random.uniform)
    assert len(flaky.waits) == attempts - 1
    assert sum(flaky.waits) <= 10 * attempts


def test_a_bug_is_not_tried_again() -> None:
    def call() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        retry(call, sleep=lambda _: pytest.fail("waits"))


def test_waits_differ() -> None:
    waits: list[float] = []
    for _ in range(20):
        retry(Flaky(1).call, sleep=waits.append)
    assert len(set(waits)) > 1
