"""What the driver asks of the agent, and what it makes of any answer; the agent is simulated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from credspec.errors import (
    AgentUnreachableError,
    CredspecError,
    NotPermittedError,
    TooManyRequestsError,
)
from credspec.kubernetes.csi import agent_leases
from credspec.kubernetes.csi.agent_leases import AgentLeases
from credspec.kubernetes.csi.volume_request import FileOptions, Pod
from support.agent.scripted_leases import directory_in_memory

POD = Pod(namespace="shop", name="web-0", uid="u", service_account="web")
ID = "0" * 32


@dataclass
class SimulatedAgent:
    """Answers as `answers` says, the last one for ever; notes what it is asked."""

    answers: list[web.Response] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    is_hung: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        if self.is_hung:
            await asyncio.Event().wait()
        text = await request.text()
        self.asked.append((request.method, request.path, json.loads(text) if text else None))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(body=found.body, status=found.status, headers=found.headers)

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]


class Asking:
    """The agent, what asks it, and a clock that only pauses move."""

    def __init__(self, agent: SimulatedAgent, socket: Path) -> None:
        self.agent = agent
        self.now = 0.0
        self.pauses: list[float] = []
        self.leases = AgentLeases(
            socket, wait_seconds=15.0, monotonic=lambda: self.now, sleep=self._sleep
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def make(self, **options: Any) -> None:
        made = FileOptions(**{"uid": 1000, "gid": 2000, "mode": 0o640} | options)
        await self.leases.make(ID, "{}", POD, Path("/run/credspec/volumes/x"), made)


@asynccontextmanager
async def serving(*answers: web.Response) -> AsyncIterator[Asking]:
    agent = SimulatedAgent([*answers])
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", agent.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    with directory_in_memory() as directory:
        await web.UnixSite(runner, str(directory / "agent.sock")).start()
        try:
            yield Asking(agent, directory / "agent.sock")
        finally:
            await runner.cleanup()


def given(**members: Any) -> web.Response:
    return web.json_response(members)


def refusal(error: CredspecError, **headers: str) -> web.Response:
    return web.json_response(error.to_json(), status=error.http_status, headers=headers)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"keytab": False, "replay_cache": False}),
        ({"keytab": True}, {"keytab": True, "replay_cache": True}),
        (
            {"tickets": "services", "services": "HTTP/a, HTTP/b,http/a"},
            {
                "keytab": False,
                "replay_cache": False,
                "tickets": "services",
                "services": ["HTTP/a", "HTTP/b"],
            },
        ),
        (
            {"tickets": "broker", "services": "HTTP/*.example.test"},
            {
                "keytab": False,
                "replay_cache": False,
                "tickets": "broker",
                "services": ["HTTP/*.example.test"],
            },
        ),
    ],
)
async def test_a_volume_is_asked_for_as_the_pod_wants_it(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    async with serving(given(tickets=options.get("tickets", "tgt"))) as asking:
        await asking.make(**options)
    common = {
        "spec": "raw://{}",
        "spec_source": "kubernetes",
        "container": "shop/web-0",
        "runtime_state": "/run/credspec/volumes/x",
        "uid": 1000,
        "gid": 2000,
        "mode": 0o640,
    }
    assert asking.agent.asked == [("PUT", f"/v1/leases/{ID}", common | expected)]


@pytest.mark.parametrize("answered", [{}, {"tickets": "tgt"}, {"tickets": "broker"}])
async def test_tickets_of_another_kind_than_asked_for_are_wiped_again(
    answered: dict[str, str],
) -> None:
    """As of an agent that is older than the option, and gave a ticket-granting ticket."""
    async with serving(given(**answered)) as asking:
        with pytest.raises(CredspecError, match="agent-too-old"):
            await asking.make(tickets="services", services="HTTP/a")
        assert asking.agent.methods == ["PUT", "DELETE"]


async def test_what_passes_by_itself_is_asked_again_until_its_time_is_over() -> None:
    busy = refusal(TooManyRequestsError.of("x", "busy"), **{"Retry-After": "1"})
    async with serving(busy, busy, given()) as asking:
        await asking.make()
        assert asking.agent.methods == ["PUT"] * 3
    async with serving(busy) as asking:
        with pytest.raises(TooManyRequestsError, match="busy") as caught:
            await asking.make()
        assert caught.value.retry_after == 1
        assert len(asking.agent.asked) > 5
        assert 10 < asking.now < 20
        assert 0 < min(asking.pauses) <= max(asking.pauses) <= 3
        assert len({*asking.pauses}) == len(asking.pauses), "nodes do not ask in step"


@pytest.mark.parametrize(
    "answer",
    [
        refusal(NotPermittedError.of("policy-account", "no")),
        refusal(TooManyRequestsError.of("x", "y"), **{"Retry-After": "soon"}),
        *(web.Response(status=500, body=body) for body in (b"", b"[]", b"\xff", b"[" * 100_000)),
        web.Response(status=400, body=b"{}"),
    ],
)
async def test_what_does_not_pass_is_asked_once(answer: web.Response) -> None:
    async with serving(answer) as asking:
        for ask in (asking.make, lambda: asking.leases.release(ID), lambda: asking.leases.has(ID)):
            with pytest.raises(CredspecError) as caught:
                await ask()
            assert caught.value.retry_after is None
        assert asking.agent.methods == ["PUT", "DELETE", "GET"]


async def test_whether_there_is_a_lease() -> None:
    async with serving(given(), web.Response(status=404, body=b"no JSON")) as asking:
        assert await asking.leases.has(ID)
        assert await asking.leases.has(ID) is False


async def test_an_agent_that_hangs_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_leases, "_RELEASE_SECONDS", 0.1)

    async with serving(given()) as asking:
        asking.agent.is_hung = True
        for ask in (asking.leases.release, asking.leases.has):
            with pytest.raises(AgentUnreachableError, match="no answer within"):
                await ask(ID)


async def test_an_agent_that_is_not_there_is_waited_for_a_while(tmp_path: Path) -> None:
    asking = Asking(SimulatedAgent(), tmp_path / "agent.sock")
    with pytest.raises(AgentUnreachableError, match="No such file or directory"):
        await asking.make()
    assert 10 < asking.now < 20
    with pytest.raises(AgentUnreachableError):
        await asking.leases.has(ID)
