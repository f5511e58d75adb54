"""What a lab makes, and that nothing of it stays."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.lab import provisioning
from credspec.lab.domain import RUN_ROOT, STATE_ROOT, Lab


def surroundings() -> dict[str, object]:
    """Everything that a lab could leave: names, processes of its own, files of /etc."""

    def printed(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    etc = hashlib.sha256()
    for path in sorted(p for p in Path("/etc").rglob("*") if p.is_file()):
        etc.update(str(path).encode() + path.read_bytes())
    links = {link["ifname"] for link in json.loads(printed("ip", "-j", "link"))}
    return {
        "links": links,
        "namespaces": printed("ip", "netns"),
        "labs": sorted(p.name for p in (*STATE_ROOT.glob("*"), *RUN_ROOT.glob("*"))),
        "mounts": sorted(
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        ),
        "replay caches": sorted(p.name for p in Path("/var/tmp").glob("krb5_*")),  # noqa: S108
        "samba": len(printed("ps", "-C", "samba", "-o", "pid=").split()) > 0,
        "postgres": len(printed("ps", "-C", "postgres", "-o", "pid=").split()) > 0,
        "etc": etc.hexdigest(),
    }


@pytest.fixture(scope="module")
def before(lab: Lab) -> dict[str, object]:
    del lab  # the domain of the run is part of what was there before
    return surroundings()


def test_a_lab_that_fails_halfway_leaves_nothing(
    before: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(lab: Lab) -> None:
        raise CredspecError.of("test", f"{lab.name} fails here")

    monkeypatch.setattr(provisioning, "_populate", fail)
    with pytest.raises(CredspecError, match="half fails here"):
        provisioning.up("half", realm="HALF.TEST")
    assert surroundings() == before


def test_up_twice_is_up_once(lab: Lab) -> None:
    steps: list[str] = []
    again = provisioning.up(lab.name, progress=steps.append)
    assert (again, steps) == (lab, [])


def test_exec_is_the_joined_host_and_passes_the_status(lab: Lab) -> None:
    script = "getent hosts db.example.test; echo $CREDSPEC_LAB; exit 7"
    found = subprocess.run(
        lab.exec_argv(["sh", "-c", script]), capture_output=True, text=True, check=False
    )
    assert found.returncode == 7
    assert found.stdout.split()[0] == lab.dc_address
    assert found.stdout.split()[-1] == lab.name


def test_postgresql_takes_a_gmsa_from_its_keytab(lab: Lab, tmp_path: Path) -> None:
    keytab = tmp_path / "gmsa.keytab"
    lab.samba_tool("domain", "exportkeytab", str(keytab), "--principal=WebApp04$")
    script = (
        f"kinit -kt {keytab} 'WebApp04$' && psql "
        "'host=db.example.test user=WebApp04$ dbname=demo' -Atc 'select current_user'"
    )
    environment = ["env", f"KRB5CCNAME=FILE:{tmp_path}/cc"]
    found = subprocess.run(
        [*environment, *lab.exec_argv(["sh", "-c", script])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "WebApp04$\n", found.stderr


def test_two_labs_stand_side_by_side_and_one_goes_without_a_trace(
    lab: Lab, before: dict[str, object]
) -> None:
    second = provisioning.up("second", realm="SECOND.TEST")
    try:
        assert second.is_running()
        assert lab.is_running()
        assert second.dc_address != lab.dc_address
        for one in (lab, second):
            asked = one.exec_argv(["getent", "hosts", one.dc_host])
            shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            assert shown.split()[0] == one.dc_address
    finally:
        second.down()
    second.down()
    assert surroundings() == before
