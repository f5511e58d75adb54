"""The hooks' programs, without an agent: what they print must be what Podman can go on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from credspec.shim import podman_hook
from support.agent.simulated_agent import GRANTED, SimulatedAgent
from support.engines.podman_storage import CONTAINER, write_storage

SOURCE = str(Path(__file__).parents[3] / "src")
USERDATA = f"/run/containers/storage/overlay-containers/{CONTAINER}/userdata"


def hook(stage: str, document: Any, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path.append({SOURCE!r})\n"
        "from credspec.shim.podman_hook import main\n"
        f"sys.argv = ['/hook', {stage!r}]\nmain(run_directory={str(tmp_path)!r})"
    )
    return subprocess.run(
        [sys.executable, "-IS", "-c", code],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_container_without_a_spec_stays_as_it_is(tmp_path: Path) -> None:
    config = {"process": {"env": ["A=1"]}, "annotations": {"x": "y"}}
    assert json.loads(hook("precreate", config, tmp_path).stdout) == config


@pytest.mark.root  # it mounts a tmpfs
@pytest.mark.parametrize(
    ("mounts", "code"),
    [
        ([{"source": f"{USERDATA}/.containerenv", "destination": "/run/.containerenv"}], "unreach"),
        ([{"source": f"{USERDATA}/x", "destination": "/volume"}], "podman-container-unknown"),
        ([{"source": "/etc/passwd", "destination": "/etc/hostname"}], "podman-container-unknown"),
    ],
)
def test_a_refusal_becomes_the_containers_end(
    tmp_path: Path, mounts: list[dict[str, str]], code: str
) -> None:
    (tmp_path / "leases").mkdir()
    config = write_storage(tmp_path / "storage", {})
    confirmed = {"type": "tmpfs", "destination": "/run/credspec"}
    config |= {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "mounts": [*mounts, confirmed],
    }
    shown = hook("precreate", config, tmp_path)
    assert shown.returncode == 0, shown.stderr
    made = json.loads(shown.stdout)
    (last_words,) = made["hooks"]["prestart"]
    assert last_words["path"].startswith("/credspec: ")
    assert code in last_words["path"]
    assert "credspec.dev/spec" not in made["annotations"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a tmpfs")
def test_a_lease_from_its_grant_to_the_containers_end(tmp_path: Path) -> None:
    """With an agent that is simulated."""
    (tmp_path / "leases").mkdir()
    config = write_storage(tmp_path / "storage", {})
    config |= {
        "annotations": {"credspec.dev/spec": "file://a.json", "x": "y"},
        "mounts": [
            {"source": f"{USERDATA}/.containerenv", "destination": "/run/.containerenv"},
            {"type": "tmpfs", "destination": "/run/credspec"},
        ],
    }
    agent = SimulatedAgent(tmp_path / "agent.sock")
    try:
        made = json.loads(hook("precreate", config, tmp_path).stdout)
        assert "hooks" not in made
        (lease,) = (tmp_path / "leases").iterdir()
        assert lease.is_mount()
        destinations = {mount["destination"]: mount for mount in made["mounts"]}
        assert destinations["/run/credspec"]["source"] == str(lease)
        assert destinations["/run/credspec/.no-checkpoint"]["type"] == "ramfs"
        assert "KRB5CCNAME=/run/credspec/krb5cc" in made["process"]["env"]
        assert made["annotations"] == {"x": "y"}, "the shim leaves it as it is"
        # Another container's end is not its own.
        assert hook("poststop", {"id": "f" * 64}, tmp_path).returncode == 0
        assert lease.is_mount()
        assert hook("poststop", {"id": CONTAINER}, tmp_path).returncode == 0
        assert not lease.exists()
        assert agent.asked[0][:2] == ("PUT", f"/v1/leases/{lease.name}")
        assert agent.asked[-1][:2] == ("DELETE", f"/v1/leases/{lease.name}")
    finally:
        agent.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a tmpfs")
def test_a_network_that_the_runtime_will_make(tmp_path: Path) -> None:
    """The KDC's sockets are opened by a hook that runs once it is there."""
    (tmp_path / "leases").mkdir()
    other = {"path": "/other"}
    config = write_storage(tmp_path / "storage", {})
    config |= {
        "annotations": {"credspec.dev/spec": "file://a.json", "credspec.dev/tickets": "broker"},
        "hooks": {"createRuntime": [other]},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]},
        "mounts": [
            {"source": f"{USERDATA}/.containerenv", "destination": "/run/.containerenv"},
            {"type": "tmpfs", "destination": "/run/credspec"},
        ],
    }
    granted = GRANTED.replace(b"}}", b'}, "tickets": "broker"}')
    agent = SimulatedAgent(tmp_path / "agent.sock", granted)
    try:
        made = json.loads(hook("precreate", config, tmp_path).stdout)
        added = {"path": "/hook", "args": ["/hook", "createRuntime"]}
        assert made["hooks"]["createRuntime"] == [other, added]
        (lease,) = (tmp_path / "leases").iterdir()
        state = {"id": CONTAINER, "pid": os.getpid()}
        assert hook("createRuntime", state, tmp_path).returncode == 0
        assert agent.asked[-1] == ("POST", f"/v1/leases/{lease.name}/kdc", None)
        failed = hook("createRuntime", state | {"pid": 2**22 + 1}, tmp_path)
        assert failed.returncode == 1
        assert "[kdc-sockets]" in failed.stderr
        assert not lease.exists()
    finally:
        agent.close()


def test_words_of_a_refusal_are_one_path_of_one_line(tmp_path: Path) -> None:
    """What Podman shows of a hook is its path, and that of a program that is not there."""
    words = podman_hook._refused({}, "a ../b\n\tc " + "x" * 5000)["hooks"]["prestart"][0]["path"]
    assert words.startswith("/credspec: a . ./b c xxx")
    assert len(words) <= len("/credspec: ") + 1000
    assert "\n" not in words
    others = {"hooks": {"prestart": [{"path": "/other"}], "poststop": [{"path": "/more"}]}}
    hooks = podman_hook._refused(others, "x")["hooks"]
    assert [each["path"] for each in hooks["prestart"]] == ["/credspec: x", "/other"]
    assert hooks["poststop"] == [{"path": "/more"}]


def test_a_defect_becomes_the_containers_end_too(tmp_path: Path) -> None:
    config = {"annotations": {"credspec.dev/spec": "file://a.json"}, "mounts": [5]}
    made = json.loads(hook("precreate", config, tmp_path).stdout)
    assert "[" in made["hooks"]["prestart"][0]["path"]
    assert "credspec.dev/spec" not in made["annotations"]


@pytest.mark.parametrize("container", ["", "../../etc", "A" * 64, "a" * 63, None])
def test_an_id_from_outside_never_becomes_a_path(tmp_path: Path, container: str | None) -> None:
    (tmp_path / "leases").mkdir()
    assert hook("poststop", {"id": container}, tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "leases"]


@pytest.mark.parametrize("name", ["Credspec.dev/spec", "credspec.dev/specs", "credspec.dev%2Fspec"])
def test_an_annotation_that_is_not_understood_becomes_the_containers_end(
    tmp_path: Path, name: str
) -> None:
    made = json.loads(hook("precreate", {"annotations": {name: "x"}}, tmp_path).stdout)
    assert "carrier-misspelt" in made["hooks"]["prestart"][0]["path"]


def test_anothers_annotation_in_other_letters_stays_as_it_is(tmp_path: Path) -> None:
    """Such as the hook is run for, too."""
    config = {"annotations": {"\u00e4.example/100%25": "x"}}
    assert json.loads(hook("precreate", config, tmp_path).stdout) == config
