"""Whether the answers that grant leases reach their callers; what does not reach them is undone.

gRPC tells a service nothing of an answer once it has taken it: a client whose deadline passes just
then resets the call's stream and never learns the id of its lease. So the front of gRPC's socket
looks for that id in the frames that it carries, and knows of each answer whether it was written to
the client, and whether the client had reset the call or does so afterwards.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Final, TypeAlias

Undo: TypeAlias = Callable[[], None]

MOST_REMEMBERED: Final = 256
"""How many streams of a connection are remembered after their answer or reset."""

ANSWER_BYTES: Final = 5 + 2 + 64
"""How much of an answer is needed: gRPC's prefix, the field's, and the longest id of a lease."""

_PREFIX: Final = 5  # of gRPC: whether it is compressed, and the message's length
_FIRST_TEXT: Final = 0x0A  # protocol buffers: field 1, of bytes; it is lease_id in every answer
_LONGEST_ID: Final = 64


def lease_of(answer: bytes) -> str | None:
    """Return the id of the lease that an answer grants, None if it is another kind of answer."""
    if len(answer) <= _PREFIX + 1 or answer[0] or answer[_PREFIX] != _FIRST_TEXT:
        return None
    length, begin = answer[_PREFIX + 1], _PREFIX + 2
    text = answer[begin : begin + length]
    if len(text) != length or not 0 < length <= _LONGEST_ID or not text.isascii():
        return None
    return text.decode("ascii")


class AnswerDelivery:
    """The answers of one connection that grant leases; `undo` of each is called at most once.

    Streams of gRPC are calls; an answer has arrived if it was written to the client in full and the
    client does not reset its stream.
    """

    def __init__(self) -> None:
        self._expected: defaultdict[str, deque[Undo]] = defaultdict(deque)
        self._written: OrderedDict[int, Undo] = OrderedDict()
        self._reset: OrderedDict[int, None] = OrderedDict()
        self._has_ended = False

    def expect(self, lease: str, undo: Undo, *, is_idle: bool) -> None:
        """Note that an answer with the id of a lease is being sent; `is_idle` as for `look`."""
        if self._has_ended or is_idle:
            undo()
        else:
            self._expected[lease].append(undo)

    def written(self, stream: int, answer: bytes) -> None:
        """Note that a call's whole answer was written to the client; `answer` is its beginning."""
        lease = lease_of(answer)
        if lease is None or lease not in self._expected:
            return
        undo = self._expected[lease].popleft()
        if not self._expected[lease]:
            del self._expected[lease]
        if stream in self._reset:
            undo()
            return
        self._written[stream] = undo
        if len(self._written) > MOST_REMEMBERED:
            self._written.popitem(last=False)

    def reset(self, stream: int) -> None:
        """Note that the client has reset a call: it takes no answer any more."""
        undo = self._written.pop(stream, None)
        if undo is not None:
            undo()
            return
        self._reset[stream] = None
        if len(self._reset) > MOST_REMEMBERED:
            self._reset.popitem(last=False)

    def look(self, *, is_idle: bool) -> None:
        """Undo what is still expected if no call is under way: nobody is left to be answered."""
        if is_idle:
            for undo in [undo for several in self._expected.values() for undo in several]:
                undo()
            self._expected.clear()

    def end(self) -> None:
        """Note that the connection has ended; what was not written to the client is undone."""
        self._has_ended = True
        self.look(is_idle=True)
        self._written.clear()
