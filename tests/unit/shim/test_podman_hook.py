"""The hooks' programs, without an agent: what they print must be what Podman can go on with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unit.shim.podman_storage import CONTAINER, write_storage

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
