"""Leases whose containers are gone; what lives is simulated, the leases are real records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from credspec.agent.leases.record import LeaseRecord
from credspec.agent.leases.sweep import Sweep
from credspec.agent.leases.table import LeaseTable

RECORD = LeaseRecord(
    lease_id="1" * 32,
    container="c1",
    runtime_state="/run/runc/c1",
    uid=1000,
    gid=1000,
    domain="example.test",
    default_account="WebApp01",
    accounts=("WebApp01",),
    created=datetime(2026, 1, 1, tzinfo=UTC),
)
RECORDS = [replace(RECORD, lease_id=str(number) * 32) for number in range(1, 5)]


class SimulatedLiveness:
    """Says which containers are gone; `meanwhile` is what happens while it looks."""

    def __init__(self, *gone: LeaseRecord, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._gone, self._meanwhile = gone, meanwhile
        self.looked_at: list[LeaseRecord] = []
        self.kept: list[LeaseRecord] = []

    async def gone(self, records: Iterable[LeaseRecord]) -> list[LeaseRecord]:
        self.looked_at = list(records)
        self._meanwhile()
        return list(self._gone)

    async def forget_all_but(self, records: Iterable[LeaseRecord]) -> None:
        self.kept = list(records)


class Bench:
    def __init__(self, liveness: SimulatedLiveness, *, refuses: str = "") -> None:
        self.table = LeaseTable()
        self.table.records = {record.lease_id: record for record in RECORDS}
        self.released: list[str] = []
        self.closed: list[LeaseRecord] = []
        self._refuses = refuses
        self.sweep = Sweep(self.table, liveness, self, self.release)  # type: ignore[arg-type]

    async def release(self, lease_id: str) -> None:
        if lease_id == self._refuses:
            raise ZeroDivisionError
        del self.table.records[lease_id]
        self.released.append(lease_id)

    def close_to_others(self, records: Iterable[LeaseRecord]) -> None:
        self.closed = list(records)


async def test_what_is_gone_is_released_and_nothing_else_simulated() -> None:
    liveness = SimulatedLiveness(RECORDS[0], RECORDS[2])
    bench = Bench(liveness)
    assert await bench.sweep.run() == 2
    assert bench.released == [RECORDS[0].lease_id, RECORDS[2].lease_id]
    assert liveness.looked_at == RECORDS
    assert liveness.kept == RECORDS
    assert bench.closed == [RECORDS[1], RECORDS[3]]


async def test_a_container_that_was_started_again_meanwhile_keeps_its_lease_simulated() -> None:
    """The lease of the same id is another one: its container lives."""
    another = replace(RECORDS[0], container="c2")

    def meanwhile() -> None:
        bench.table.records[another.lease_id] = another
        del bench.table.records[RECORDS[1].lease_id]

    bench = Bench(SimulatedLiveness(*RECORDS[:3], meanwhile=meanwhile))
    assert await bench.sweep.run() == 1
    assert bench.released == [RECORDS[2].lease_id]
    assert bench.table.records[another.lease_id] is another


async def test_one_that_cannot_be_released_is_not_counted_and_stops_no_other_simulated() -> None:
    bench = Bench(SimulatedLiveness(*RECORDS), refuses=RECORDS[1].lease_id)
    assert await bench.sweep.run() == 3
    assert bench.released == [RECORDS[n].lease_id for n in (0, 2, 3)]
