"""Waiting until all is well; time and chance are simulated."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from credspec.doctor.step import State, Step, StepResult
from credspec.doctor.waiting import examine_until_well
from credspec.errors import ExitStatus, Problem

STEP = Step(name="dns", title="DNS", run=lambda _: None)  # type: ignore[arg-type,return-value]


def result(status: ExitStatus) -> StepResult:
    return StepResult(
        step=STEP,
        state=State.FAILED if status else State.OK,
        text="",
        problems=(Problem("x", "y"),) if status else (),
        exit_status=status,
    )


class SimulatedTime:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@given(
    found=st.lists(st.sampled_from([4, 5, 6, 1]), max_size=40),
    seconds=st.floats(0, 300),
    took=st.floats(0.1, 20),
    share=st.floats(0, 1),
)
def test_it_ends_well_or_in_time(
    found: list[int], seconds: float, took: float, share: float
) -> None:
    time, coming, reported = SimulatedTime(), iter([*found, 0]), []

    def examine() -> list[StepResult]:
        time.now += took
        return [result(ExitStatus(next(coming)))]

    results = examine_until_well(
        examine,
        seconds,
        report=lambda first, left: reported.append((first, left)),
        clock=time.clock,
        sleep=time.sleep,
        chance=lambda low, high: low + share * (high - low),
    )
    assert results[0].exit_status == 0 or time.now >= seconds
    assert time.now <= seconds + took + 0.001 or not time.pauses
    assert len(reported) == len(time.pauses)
    assert all(pause <= 10 for pause in time.pauses)
    assert all(left > 0 for _, left in reported)


@given(st.sampled_from([ExitStatus.USAGE, ExitStatus.INVALID_SPEC]))
def test_what_waiting_does_not_mend_ends_it(status: ExitStatus) -> None:
    time = SimulatedTime()
    results = examine_until_well(
        lambda: [result(status)],
        1000,
        report=lambda *_: None,
        clock=time.clock,
        sleep=time.sleep,
    )
    assert results[0].exit_status == status
    assert time.pauses == []
