"""Users whose passwords come with requests, at the real domain."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from credspec.agent.given_users import GivenUser, GivenUsers
from credspec.agent.host_identity import MachineKeytab
from credspec.errors import NotPermittedError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from integration.conftest import make_session

PASSWORD = "Correct-Horse.7\nbattery"


@pytest.fixture(scope="module")
def reader(lab: Lab) -> Iterator[str]:
    """A user who may read WebApp02's password, as the lab's hosts may."""
    lab.samba_tool("user", "create", "reader", PASSWORD)
    lab.samba_tool("group", "addmembers", "LabHosts", "reader")
    yield f"reader@{lab.dns_domain}"
    lab.samba_tool("user", "delete", "reader")


def test_a_user_reads_what_it_may(lab: Lab, krb5_conf: AgentKrb5Conf, reader: str) -> None:
    user = GivenUser(reader)
    user.take(PASSWORD)
    session = make_session(lab, user, krb5_conf)
    assert session.acquire("WebApp02").ticket.principal == "WebApp02$@EXAMPLE.TEST"
    with pytest.raises(NotPermittedError, match="password-not-permitted"):
        session.acquire("WebApp01")
    session.close()
    user.close()


def test_the_host_and_users_side_by_side(
    lab: Lab, krb5_conf: AgentKrb5Conf, host_identity: MachineKeytab, reader: str
) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            identity = host_identity if number % 2 else GivenUser(reader)
            if isinstance(identity, GivenUser):
                identity.take(PASSWORD)
            session = make_session(lab, identity, krb5_conf)
            if number % 2:
                session.acquire("WebApp01")
            else:
                with pytest.raises(NotPermittedError):
                    session.acquire("WebApp01")
            session.close()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_wrong_password_replaces_no_right_one(
    lab: Lab, krb5_conf: AgentKrb5Conf, reader: str
) -> None:
    users = GivenUsers()
    users.check(reader, PASSWORD)
    with pytest.raises(NotPermittedError, match="host-password-refused") as caught:
        users.check(reader, "wrong-Horse.7")
    assert "Horse" not in str(caught.value)
    assert users.get(reader).log_on().principal == "reader@EXAMPLE.TEST"
    users.drop(reader)
    with pytest.raises(NotPermittedError, match="host-password-unknown"):
        users.get(reader).log_on()


def test_the_domain_is_asked_once_about_a_wrong_password(
    lab: Lab, krb5_conf: AgentKrb5Conf, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = GivenUser(reader)
    user.take("wrong-Horse.7")
    for _ in range(2):
        with pytest.raises(NotPermittedError, match="host-password-refused"):
            user.get_service_ticket(f"ldap/{lab.dc_host}")
        monkeypatch.setenv("KRB5_CONFIG", "/nonexistent")
