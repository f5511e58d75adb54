"""How kubectl is asked, and what its answers are taken for; kubectl is a simulated one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import CredspecError
from credspec.kubernetes.check import kubectl
from credspec.kubernetes.check.kubectl import Kubectl, Output

PROGRAM = """#!{python} -IS
import json, sys
here = {here!r}
answer = json.load(open(here + "/answer"))
json.dump([sys.argv[1:], sys.stdin.read()], open(here + "/asked", "w"))
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(answer["status"])
"""


class Simulated:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "kubectl"
        self.program.write_text(PROGRAM.format(python=sys.executable, here=str(folder)))
        self.program.chmod(0o755)
        self.kubectl = Kubectl(["--context=c"], str(self.program))

    def answers(self, stdout: Any = "", stderr: str = "", status: int = 0) -> None:
        text = stdout if isinstance(stdout, str) else json.dumps(stdout)
        answer = {"stdout": text, "stderr": stderr, "status": status}
        (self.folder / "answer").write_text(json.dumps(answer))

    def asked(self) -> str:
        arguments, _ = json.loads((self.folder / "asked").read_text())
        return " ".join(arguments)


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    return Simulated(tmp_path)


def test_simulated_objects_are_asked_for(simulated: Simulated) -> None:
    simulated.answers({"kind": "Pod"})
    assert simulated.kubectl.get("pods", "web", "shop") == {"kind": "Pod"}
    assert simulated.asked() == "--context=c get pods web --namespace shop --output json"
    simulated.answers({"items": [{"a": 1}, 2]})
    assert simulated.kubectl.find("pods", "", labels="a=b") == [{"a": 1}]
    assert simulated.asked().endswith("get pods --all-namespaces --selector a=b --output json")
    assert simulated.kubectl.events_of("shop", "web") == [{"a": 1}]
    assert "involvedObject.name=web" in simulated.asked()


@pytest.mark.parametrize(
    "stderr",
    [
        'Error from server (NotFound): pods "web" not found',
        'error: the server doesn\'t have a resource type "gmsacredentialspecs"',
    ],
)
def test_simulated_what_is_not_there_is_none(simulated: Simulated, stderr: str) -> None:
    simulated.answers(stderr=stderr, status=1)
    assert simulated.kubectl.get("pods", "web") is None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (("", "Error from server (Forbidden): pods is forbidden", 1), "kubectl-forbidden"),
        (("", "The connection to the server was refused", 1), "kubectl-failed"),
        (("", "", 1), "kubectl-failed"),
        (("no JSON", "", 0), "kubectl-failed"),
        (("[]", "", 0), "kubectl-failed"),
    ],
)
def test_simulated_failures_are_errors(
    simulated: Simulated, answer: tuple[str, str, int], code: str
) -> None:
    simulated.answers(*answer)
    with pytest.raises(CredspecError) as caught:
        simulated.kubectl.get("pods", "web")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("stdout", "status", "expected"),
    [("yes\n", 0, True), ("no\n", 1, False), ("no - no RBAC policy matched\n", 1, False)],
)
def test_simulated_rights_are_asked_for_a_service_account(
    simulated: Simulated, stdout: str, status: int, expected: bool
) -> None:
    simulated.answers(stdout, "Warning: resource is not namespace scoped\n", status)
    assert simulated.kubectl.may_use("shop", "web", "webapp01") is expected
    asked = simulated.asked()
    assert "auth can-i use gmsacredentialspecs.windows.k8s.io/webapp01 --namespace shop" in asked
    assert "--as system:serviceaccount:shop:web" in asked
    assert "--as-group=system:serviceaccounts:shop" in asked


def test_simulated_a_user_who_may_not_impersonate_is_no_no(simulated: Simulated) -> None:
    simulated.answers("", "Error from server (Forbidden): users is forbidden", 1)
    with pytest.raises(CredspecError, match="kubectl-forbidden"):
        simulated.kubectl.may_use("shop", "web", "webapp01")


def test_simulated_a_program_runs_in_a_container(simulated: Simulated) -> None:
    simulated.answers("out", "err", 3)
    output = simulated.kubectl.run_in("credspec", "x", "agent", ["credspec", "check", "-"], "text")
    assert output == Output(3, "out", "err")
    assert simulated.asked().endswith(
        "exec --stdin --namespace credspec x -c agent -- credspec check -"
    )
    assert json.loads((simulated.folder / "asked").read_text())[1] == "text"


def test_simulated_one_that_hangs_or_is_not_there_is_an_error(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(kubectl, "_SECONDS", 0.2)
    with pytest.raises(CredspecError, match="no answer within"):
        simulated.kubectl.get("pods", "web")
    simulated.program.unlink()
    with pytest.raises(CredspecError, match="kubectl-missing"):
        simulated.kubectl.get("pods", "web")
