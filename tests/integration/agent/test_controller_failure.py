"""Two real controllers of the domain, one of them broken in each way, under a running agent.

What must be quick is shown by what is answered first, since a clock says little on a busy machine.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.errors import CredspecError, UnreachableError
from credspec.lab.domain import Lab
from credspec.lab.provisioning import READABLE
from credspec.lab.second_controller import SecondController, up_second_controller
from support.agent.agent_process import AgentProcess
from support.domain.controllers import Controllers

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made


@pytest.fixture(scope="module")
def second(lab: Lab) -> Iterator[SecondController]:
    found = up_second_controller(lab)
    found.replicate()
    yield found
    found.down()


@pytest.fixture
def agent(lab: Lab, second: SecondController, tmp_path: Path) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, tmp_path)
    for account in READABLE:
        path = tmp_path / "specs" / f"{account}.json"
        make_credential_spec(NewSpecRequest(account_name=account, path=str(path)))
    yield found
    found.close()


class Leasing:
    """Makes leases of one account after the other, so that each must ask the domain."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self._accounts = iter(READABLE)
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """Make a lease of an account that is not held yet; return the controller then in use."""
        self._lease(next(self._accounts))
        return str(self.domain()["controller"])

    def next_while_others_ask(self) -> tuple[str | CredspecError, int]:
        """As `next`; also return how often everything else was answered meanwhile."""
        answered: list[str | CredspecError] = []

        def lease() -> None:
            try:
                answered.append(self.next())
            except CredspecError as error:
                answered.append(error)

        waiting = threading.Thread(target=lease)
        waiting.start()
        rounds = 0
        while waiting.is_alive():
            self.again()
            for path in ("/healthz", "/v1/domains", "/v1/identities", "/v1/leases"):
                self.agent.client.get(path)
            rounds += waiting.is_alive()
        return answered[0], rounds

    def again(self) -> None:
        """Make another lease of the account that is held longest."""
        self._lease(READABLE[0])

    def _lease(self, account: str) -> None:
        number = next(self._numbers)
        self.agent.mount(number)
        self.agent.put(number, f"file://{account}.json")

    def domain(self) -> Any:
        return self.agent.client.get("/v1/domains")["domains"][0]


@pytest.fixture
def leasing(agent: AgentProcess) -> Leasing:
    agent.start()
    return Leasing(agent)


@pytest.fixture
def controllers(lab: Lab, second: SecondController) -> Iterator[Controllers]:
    found = Controllers(lab, second)
    yield found
    found.restore()


def test_one_that_is_stopped_is_replaced_and_taken_again_when_it_is_back(
    leasing: Leasing, controllers: Controllers
) -> None:
    used = leasing.next()
    other = controllers.other_than(used)
    controllers.stop(used)
    assert leasing.next() == other
    controllers.start(used)
    controllers.stop(other)
    assert leasing.next() == used
    assert len(leasing.agent.lease_containers()) == 3


def test_one_that_hangs_is_replaced_and_holds_up_nothing_that_does_not_need_it(
    leasing: Leasing, controllers: Controllers
) -> None:
    used = leasing.next()
    controllers.pause(used)
    answered, rounds = leasing.next_while_others_ask()
    assert answered == controllers.other_than(used)
    # Had any of them waited for the controller, there were one or two.
    assert rounds > 10


def test_one_that_is_cut_off_is_replaced(
    leasing: Leasing, controllers: Controllers, second: SecondController
) -> None:
    first = controllers.other_than(second.host)
    controllers.stop(first)
    assert leasing.next() == second.host
    controllers.start(first)
    second.cut_off()
    assert leasing.next() == first


def test_one_that_is_slow_is_waited_for_if_there_is_no_other(
    leasing: Leasing, controllers: Controllers, second: SecondController
) -> None:
    second.delay(400)
    controllers.stop(controllers.other_than(second.host))
    assert leasing.next() == second.host
    assert float(leasing.domain()["latency_seconds"]) >= 0.4


@pytest.mark.parametrize("way", ["stopped", "hanging"])
def test_without_any_a_lease_is_refused_the_others_stay_and_all_goes_on_when_one_is_back(
    leasing: Leasing, controllers: Controllers, second: SecondController, lab: Lab, way: str
) -> None:
    leasing.next()
    break_, restore = {
        "stopped": (controllers.stop, controllers.start),
        "hanging": (controllers.pause, controllers.resume),
    }[way]
    for host in (lab.dc_host, second.host):
        break_(host)
    before = len(leasing.agent.lease_containers())
    answered, rounds = leasing.next_while_others_ask()
    assert isinstance(answered, UnreachableError)
    if way == "hanging":
        assert rounds > 10
    # Those of the identity that is held were all made.
    assert len(leasing.agent.lease_containers()) >= before + rounds
    assert leasing.domain()["outage_since"] is not None
    restore(second.host)
    assert leasing.next() == second.host
    assert leasing.domain()["outage_since"] is None
