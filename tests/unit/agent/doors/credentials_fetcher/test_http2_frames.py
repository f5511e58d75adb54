"""The frames that the front looks at, whatever the pieces in which they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.doors.credentials_fetcher.http2_frames import (
    ENHANCE_YOUR_CALM,
    PROTOCOL_ERROR,
    ClientFrames,
    FrameError,
    FrameLimits,
    ServerFrames,
    goaway,
)
from support.credentials_fetcher.http2_frames_by_hand import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GREETING,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    begin_call,
    frame,
    whole_call,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def feed(frames: ClientFrames, data: bytes, *sizes: int) -> bytes:
    """Feed data in pieces of these sizes, the rest at once."""
    handed = b""
    for size in sizes:
        handed += frames.feed(memoryview(data[:size]))
        data = data[size:]
    return handed + frames.feed(memoryview(data))


FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=40).map(lambda data: frame(PING, data)),
        st.integers(0, 30).map(lambda number: whole_call(2 * number + 1, "HealthCheck", b"x")),
        st.integers(0, 30).map(lambda number: frame(RST_STREAM, bytes(4), stream=2 * number + 1)),
        st.tuples(st.integers(10, 255), st.binary(max_size=40)).map(lambda f: frame(*f)),
    ),
    max_size=20,
)


@given(FRAMES, st.lists(st.integers(0, 60), max_size=60))
def test_whatever_the_pieces_all_of_it_is_handed_on(frames: list[bytes], sizes: list[int]) -> None:
    data = GREETING + b"".join(frames)
    whole, pieces = ClientFrames(), ClientFrames()
    handed = feed(pieces, data, *sizes)
    assert handed == feed(whole, data)
    assert pieces.is_between_frames
    assert (pieces.last_stream, pieces.count, pieces.calls) == (
        whole.last_stream,
        whole.count,
        whole.calls,
    )
    # What belongs to calls that were never begun is left out, and nothing else.
    highest, expected = 0, GREETING
    for each in frames:
        stream = int.from_bytes(each[5:9], "big")
        if each[3] == HEADERS:
            highest = max(highest, stream)
        if stream <= highest:
            expected += each
    assert handed == expected


@given(st.binary(max_size=2000), st.lists(st.integers(1, 50), max_size=40))
def test_any_bytes_are_handed_on_or_refused(data: bytes, sizes: list[int]) -> None:
    frames = ClientFrames()
    try:
        handed = feed(frames, GREETING + data, *sizes)
    except FrameError as error:
        assert error.code in {PROTOCOL_ERROR, ENHANCE_YOUR_CALM}
    else:
        assert len(handed) <= len(GREETING) + len(data)
    assert frames.request_bytes >= 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "not HTTP/2"),
        (PREFACE + frame(PING, bytes(8)), "no settings first"),
        (PREFACE + begin_call(1), "no settings first"),
        (GREETING + begin_call(1, flags=0) + frame(PING, bytes(8)), "another frame within headers"),
        (GREETING + begin_call(1, flags=0) + begin_call(3), "another frame within headers"),
        (GREETING + frame(HEADERS, bytes(70_000), flags=END_HEADERS, stream=1), "of headers"),
        (
            GREETING + begin_call(1, flags=0) + frame(CONTINUATION, bytes(9000), stream=1) * 9,
            "of h",
        ),
        (GREETING + b"".join(map(begin_call, range(1, 500, 2))), "more than 200 calls"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        feed(ClientFrames(), data)


def test_calls_are_known_until_they_are_answered_or_reset() -> None:
    clock = Clock()
    frames = ClientFrames(clock=clock)
    assert not frames.is_greeted
    feed(frames, GREETING)
    assert frames.is_greeted
    assert frames.is_idle
    assert frames.incomplete_since() is None
    clock.now = 5.0
    feed(frames, begin_call(1) + frame(DATA, bytes(100), stream=1))
    clock.now = 7.0
    feed(frames, whole_call(3, "HealthCheck", bytes(50)))
    assert frames.incomplete_since() == 5.0
    assert frames.request_bytes == 155
    feed(frames, frame(DATA, b"", flags=END_STREAM, stream=1))
    assert frames.incomplete_since() is None
    frames.end_call(1)
    assert (frames.request_bytes, frames.is_idle) == (55, False)
    feed(frames, frame(RST_STREAM, bytes(4), stream=3))
    assert (frames.request_bytes, frames.is_idle, frames.calls) == (0, True, 2)
    frames.end_call(3)
    # A frame of which the rest does not come.
    clock.now = 9.0
    feed(frames, frame(PING, bytes(8))[:11])
    clock.now = 11.0
    feed(frames, b"\0")
    assert frames.incomplete_since() == 9.0


def test_of_a_connection_that_ends_new_calls_are_left_out() -> None:
    frames = ClientFrames()
    feed(frames, GREETING + begin_call(1))
    frames.is_draining = True
    rest, new = frame(DATA, b"abc", flags=END_STREAM, stream=1), whole_call(3, "HealthCheck", b"")
    assert feed(frames, new + rest + new + frame(SETTINGS, flags=1)) == rest + frame(
        SETTINGS, flags=1
    )
    assert (frames.last_stream, frames.calls) == (1, 1)
    assert goaway(1, 0) == frame(7, b"\0\0\0\1\0\0\0\0")


def test_a_limit_of_calls_counts_those_under_way() -> None:
    frames = ClientFrames(FrameLimits(streams=2))
    feed(frames, GREETING + begin_call(1) + begin_call(3))
    frames.end_call(1)
    feed(frames, begin_call(5))
    with pytest.raises(FrameError):
        feed(frames, begin_call(7))


@given(st.lists(st.integers(1, 30), max_size=60))
def test_answers_that_end_are_seen_whatever_the_pieces(sizes: list[int]) -> None:
    data = (
        frame(SETTINGS)
        + frame(HEADERS, b"h" * 20, flags=END_HEADERS, stream=1)
        + frame(DATA, b"d" * 30, stream=1)
        + frame(HEADERS, b"t" * 5, flags=END_HEADERS | END_STREAM, stream=1)
        + frame(RST_STREAM, bytes(4), stream=3)
        + frame(DATA, b"", flags=END_STREAM, stream=5)
    )
    frames, ended = ServerFrames(), []
    for size in [*sizes, len(data)]:
        ended += frames.feed(memoryview(data[:size]))
        data = data[size:]
    assert ended == [1, 3, 5]
    assert frames.is_between_frames
