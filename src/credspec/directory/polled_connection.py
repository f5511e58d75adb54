"""bonsai's connection with waiting of our own: a thread that waits must not stop all others.

bonsai's blocking calls keep Python's global lock while a server is silent; in its asynchronous
mode they return at once, and what is waited for here lets others run.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any, Final

import bonsai
from bonsai.ldapconnection import BaseLDAPConnection

if TYPE_CHECKING:
    from bonsai import LDAPClient

_FIRST_STEP_SECONDS: Final = 0.0005
_LONGEST_STEP_SECONDS: Final = 0.05


class PolledConnection(BaseLDAPConnection):
    """Operations block the calling thread alone, until their `timeout` in seconds."""

    def __init__(self, client: LDAPClient) -> None:
        super().__init__(client, is_async=True)
        self._only_sends = False

    def send_search(self, *arguments: Any, **options: Any) -> int:
        """Send a search as `search` does; `finish` returns what it found."""
        self._only_sends = True
        try:
            number: int = self.search(*arguments, **options)
        finally:
            self._only_sends = False
        return number

    def finish(self, number: int, seconds: float) -> Any:
        """Wait for what was sent under this number."""
        return self._evaluate(number, seconds)

    def _evaluate(self, msg_id: int, timeout: float | None = None) -> Any:
        if self._only_sends:
            return msg_id
        end = None if timeout is None else time.monotonic() + timeout
        step = _FIRST_STEP_SECONDS
        # Asked at once, bonsai sleeps five milliseconds with Python's lock held.
        self._wait(step)
        while (result := self.get_result(msg_id)) is None:
            if end is not None and time.monotonic() >= end:
                raise bonsai.TimeoutError
            self._wait(step)
            step = min(2 * step, _LONGEST_STEP_SECONDS)
        return result

    def _wait(self, seconds: float) -> None:
        # While connecting there may be none, or one that never becomes readable.
        descriptor = self.fileno()
        if descriptor < 0:
            time.sleep(seconds)
        else:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll(seconds * 1000)
