"""What the agent could not renew; a real one would take hours to get there, so it is simulated."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.config.host import Config
from credspec.doctor.examination import Examination
from credspec.doctor.step import State
from credspec.errors import CredspecError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.session.host_identity import MachineKeytab

IDENTITY = {"account": "WebApp01$", "domain": "contoso.com", "last_error": "[kdc-unreachable]"}


class PlayedAgent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        document: dict[str, object] = {"identities": [IDENTITY]}
        if self.path == "/readyz":
            document = CredspecError.of("not-ready", "domain x does not answer").to_json()
        body = json.dumps(document).encode()
        self.send_response(503 if self.path == "/readyz" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "test"

    def log_message(self, *arguments: object) -> None:
        del arguments


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    socket_path = tmp_path / "agent.sock"
    with socketserver.ThreadingUnixStreamServer(str(socket_path), PlayedAgent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Config(run_directory=tmp_path, keytab=tmp_path / "none")
        server.shutdown()
        thread.join()


def test_a_played_agent_that_could_not_renew(config: Config, tmp_path: Path) -> None:
    examination = Examination(
        config=config,
        krb5_conf=AgentKrb5Conf(tmp_path / "krb5.conf"),
        identity=MachineKeytab(config.keytab),
        docker_socket=tmp_path / "none",
    )
    found = {result.step.name: result for result in examination.results()}
    assert found["host-identity"].problems[0].code == "host-keytab-missing"
    assert found["agent"].state is State.WARNING
    codes = [problem.code for problem in found["agent"].problems]
    assert codes == ["identity-not-renewed", "agent-not-ready"]
    assert "domain x does not answer" in found["agent"].problems[1].text()
    assert found["runtime"].state is found["gateway"].state is State.OK
