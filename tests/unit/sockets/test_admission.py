"""Who may connect: the decisions, with any sequence of events."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.sockets.admission import (
    Admission,
    AdmissionReport,
    ConnectionLimits,
    Refusal,
    Slot,
    affordable_connections,
    is_privileged,
)
from credspec.sockets.peers import Peer

ROOT = Peer(uid=0, pid=1)
LIMITS = ConnectionLimits(total=20, reserved=5, per_peer=6, rate=10.0, burst=3)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def is_root(peer: Peer) -> bool:
    return peer.uid == 0


EVENTS = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=300)


@given(EVENTS)
def test_no_sequence_of_connections_takes_more_than_its_share(
    events: list[tuple[bool, int]],
) -> None:
    admission = Admission(LIMITS, lambda peer: peer.uid != 8, privileged=is_root, clock=Clock())
    counts: Counter[int] = Counter()
    for comes, uid in events:
        peer = Peer(uid=uid, pid=1)
        if comes:
            verdict = admission.admit(peer)
            assert (verdict is Refusal.NOT_PERMITTED) == (uid == 8)
            counts[uid] += not isinstance(verdict, Refusal)
        elif counts[uid]:
            counts[uid] -= 1
            admission.release(peer)
        assert counts[8] == 0
        assert all(counts[each] <= LIMITS.each for each in range(1, 8))
        assert counts.total() - counts[0] <= LIMITS.shared
        assert admission.open_connections == counts.total() <= LIMITS.total
        assert admission.open_of(peer) == counts[uid]


@given(EVENTS)
def test_others_never_take_what_is_reserved_for_root(events: list[tuple[bool, int]]) -> None:
    admission = Admission(LIMITS, privileged=is_root, clock=Clock())
    for _, uid in events:
        admission.admit(Peer(uid=uid + 1, pid=1))
    assert [admission.admit(ROOT) for _ in range(5)] == [0.0] * 5


def test_what_is_shared_can_be_had_whole_and_root_has_the_rest() -> None:
    admission = Admission(LIMITS, privileged=is_root, clock=Clock())
    peers = [Peer(uid=uid) for uid in range(1, 5) for _ in range(LIMITS.each)]
    verdicts = [admission.admit(peer) for peer in peers]
    assert sum(not isinstance(each, Refusal) for each in verdicts) == LIMITS.shared == 15
    assert set(verdicts[15:]) == {Refusal.FULL}
    # One that leaves makes room for one of anybody.
    admission.release(Peer(uid=1))
    assert not isinstance(admission.admit(Peer(uid=9)), Refusal)
    assert admission.admit(Peer(uid=9)) is Refusal.FULL
    assert [admission.admit(ROOT) for _ in range(6)] == [0.0] * 5 + [Refusal.FULL]


def test_root_alone_may_have_all_and_then_nobody_has_one() -> None:
    admission = Admission(LIMITS, privileged=is_root, clock=Clock())
    assert [admission.admit(ROOT) for _ in range(21)] == [0.0] * 20 + [Refusal.FULL]
    assert admission.admit(Peer(uid=1)) is Refusal.FULL
    assert admission.open_connections == 20


def test_privileged_are_root_and_the_process_s_own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    assert is_privileged(Peer(uid=0, pid=1))
    assert is_privileged(Peer(uid=4711, pid=1))
    assert not is_privileged(Peer(uid=4712, pid=1))
    # Nobody is by network, not even this host.
    assert not is_privileged(Peer(address="127.0.0.1"))
    assert not is_privileged(Peer(uid=0, address="127.0.0.1"))


def test_connections_on_top_of_the_rate_wait_and_others_do_not() -> None:
    admission = Admission(LIMITS, privileged=is_root, clock=Clock())
    quick, other = Peer(uid=1), Peer(uid=2)
    delays = [admission.admit(quick) for _ in range(6)]
    assert delays == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])
    assert admission.admit(quick) is Refusal.TOO_MANY
    assert admission.admit(other) == 0
    assert admission.admit(ROOT) == 0


def test_limits_left_out_leave_room_for_root_and_four_others() -> None:
    limits = ConnectionLimits(total=1024)
    assert (limits.shared, limits.each) == (768, 192)
    smallest = ConnectionLimits(total=1)
    assert (smallest.shared, smallest.each) == (1, 1)


@pytest.mark.parametrize(("active", "served"), [(-1, 6), (0, 1), (1, 1), (3, 3), (6, 6), (100, 6)])
def test_how_many_of_a_peer_are_served_at_a_time(active: int, served: int) -> None:
    """Of root as many as there are: it looks after the others."""
    limits = ConnectionLimits(total=20, reserved=5, per_peer=6, active=active)
    admission = Admission(limits, privileged=is_root, clock=Clock())
    assert admission.most_served(Peer(uid=1)) == served
    assert admission.most_served(ROOT) == 20


def test_a_slot_is_given_back_once() -> None:
    admission = Admission(LIMITS, privileged=is_root)
    admission.admit(ROOT)
    admission.admit(ROOT)
    slot = Slot(admission, ROOT)
    slot.release()
    slot.release()
    assert admission.open_connections == 1


def test_what_is_reported_reads_well() -> None:
    assert str(AdmissionReport(reason="no memory")) == "cannot accept connections: no memory"
    assert str(AdmissionReport(Peer(uid=5), Refusal.TOO_MANY)) == (
        "user 5 has too many open connections"
    )
    assert str(AdmissionReport(suppressed=9)) == "other peers were refused (9 times more)"


@pytest.mark.parametrize(
    ("soft", "hard", "each", "affordable"),
    [(256, 256, 1, 128), (256, 256, 3, 42), (64, 64, 1, 1), (100, 4096, 3, 1000)],
)
def test_the_limit_of_open_files_decides_how_many(
    soft: int, hard: int, each: int, affordable: int
) -> None:
    code = (
        "import resource; from credspec.sockets.admission import affordable_connections;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        f"print(affordable_connections(1000, descriptors_each={each}),"
        " *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [int(word) for word in shown.stdout.split()] == [affordable, hard, hard]


NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "after", "affordable"),
    [
        ((1024, NO_LIMIT), 65536, 65408),
        ((1024, 100_000), 65536, 65408),
        ((65536, 100_000), 65536, 65408),
        ((90_000, 100_000), 90_000, 89_872),
        ((NO_LIMIT, NO_LIMIT), NO_LIMIT, 65408),
    ],
)
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_limit_is_raised_as_far_as_is_of_use_and_never_lowered_simulated(
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    after: int,
    affordable: int,
    is_refused: bool,
) -> None:
    soft, hard = limits

    def setrlimit(_: int, wanted: tuple[int, int]) -> None:
        nonlocal limits
        if is_refused:
            raise OSError
        limits = wanted

    monkeypatch.setattr("resource.getrlimit", lambda _: limits)
    monkeypatch.setattr("resource.setrlimit", setrlimit)
    if is_refused and after != soft:
        after, affordable = soft, soft - 128
    assert affordable_connections(1_000_000) == affordable
    assert limits == (after, hard)
