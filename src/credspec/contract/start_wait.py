"""A container's start that waits for the agent or the domain, for a while and not for refusals.

After a reboot the agent, the network or the domain may come up later than the container engine,
and an engine that failed to start a container when it started itself does not try again. What is
waited for is what is transient: see `NotYetError`. Standard library only.
"""

from __future__ import annotations

import _signal
import posix
import time

from credspec.contract.errors import NotYetError, ShimError, StartAbandonedError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Callable
    from types import FrameType
    from typing import TypeVar

    _T = TypeVar("_T")

DEFAULT_SECONDS = 30.0
"""How long a start waits unless the configuration or the set-up says otherwise; 0 is not at all.

Docker does not try again what failed when dockerd started, and has no limit of its own; some of its
clients give up after 60 s (the Python SDK, docker-compose 1).
"""

CONTAINERD_SECONDS = 10.0
"""The same for containerd's handler: the kubelet tries again on its own.

Until a container is created, containerd's shim answers for no other container of the pod, so probes
and `kubectl exec` of its neighbours wait meanwhile.
"""

JUST_BOOTED_SECONDS = 600.0
"""How long after the host's boot the agent's socket may not be open to users yet.

systemd makes it for root only, and the agent opens it to those whom the configuration names.
"""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 4.0
_SPREAD = (0.5, 1.5)  # containers that were started together ask at times of their own
_MAX_LINE = 500
_ENDING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


class StartWait:
    """How long a start may wait, and how that is reported; for one start.

    `seconds` is the time within which another attempt may begin. `say` gets one line when the
    waiting begins. `is_wanted` returns whether anybody still waits for the start. `retry_after`
    returns None for an error that waiting does not help, else how many seconds not to ask at all;
    by default it knows `NotYetError`. Clock, sleep and chance can be replaced; `spread(low, high)`
    returns a number in between.

    `waited` is how long was waited, in seconds; 0 without any waiting.
    """

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], object],
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        retry_after: Callable[[Exception], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        spread: Callable[[float, float], float] | None = None,
    ) -> None:
        self.seconds = seconds
        self.waited = 0.0
        self._started: float | None = None
        self._end = seconds
        self._is_waiting = self._is_last = False
        self._say = say
        self._is_wanted = is_wanted
        self._retry_after = retry_after or _retry_after
        self._clock = clock
        self._sleep = sleep
        self._spread = spread or _chance

    def run(self, attempt: Callable[[], _T]) -> _T:
        """Call `attempt` until it returns, and return that.

        A second call goes on with the time that the first one left.

        Raises:
            ShimError: `start-abandoned` if nobody waits for it any more.
            Exception: the last one that `attempt` raised.
        """
        if self._started is None:
            self._started, self._end = self._clock(), self.seconds
        started, pause = self._started, _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except Exception as error:
                after = self._retry_after(error)
                past = self._clock() - started
                self.waited = past if self._is_waiting else 0.0
                if after is None or self._is_last or past >= self._end:
                    raise
                reason = str(error)
            if not self._is_waiting:
                self._is_waiting = True
                line = " ".join(reason.split())[:_MAX_LINE]
                self._say(f"waiting for up to {self.seconds:.0f} s: {line}")
            this = max(pause * self._spread(*_SPREAD), after * self._spread(1.0, 1.5))
            pause = min(pause * 2, _LONGEST_PAUSE)
            if past + this >= self._end:
                # The last attempts of many are spread, too.
                this = (self._end - past) * self._spread(0.2, 1.0)
                self._is_last = True
            self._sleep(this)
            self.waited = self._clock() - started
            if not self._is_wanted():
                raise StartAbandonedError(self.waited)


def _retry_after(error: Exception) -> float | None:
    return error.retry_after if isinstance(error, NotYetError) else None


def _chance(low: float, high: float) -> float:
    # The package random costs milliseconds.
    return low + (high - low) * int.from_bytes(posix.urandom(4), "big") / 0xFFFFFFFF


def has_just_booted() -> bool:
    """Return whether the host has been up for less than ten minutes, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) < JUST_BOOTED_SECONDS


def parent_is_there() -> Callable[[], bool]:
    """Return a function that tells whether the process that started this one still does."""
    parent = posix.getppid()
    return lambda: posix.getppid() == parent


class EndedBySignals:
    """While the block runs, a signal that asks for an end raises a `ShimError`, once.

    Its code is `start-interrupted`. So what was made for the container is taken down again.
    """

    def __init__(self) -> None:
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (getattr(_signal, name) for name in _ENDING):
            if _signal.getsignal(number) is _signal.SIG_IGN:
                continue  # as nohup has it
            try:
                self._before[number] = _signal.signal(number, self._received)
            except ValueError:
                return  # not the main thread, which is asked in its place

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, _signal.SIG_DFL if handler is None else handler)

    def _received(self, number: int, _: FrameType | None) -> None:
        for each in self._before:
            _signal.signal(each, _signal.SIG_IGN)  # the rest is taking down
        raise ShimError("start-interrupted", f"container start: ended by signal {number}")
