"""What a lab makes, and that nothing of it stays."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from credspec.directory.dns_resolver import DnsResolver
from credspec.errors import CredspecError
from credspec.lab import domain_cache, provisioning
from credspec.lab.domain import RUN_ROOT, STATE_ROOT, Lab
from credspec.lab.namespaces import mount_points
from credspec.lab.network import LabNetwork

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made

CREDSPEC = Path(sys.executable).with_name("credspec")
FREE = ipaddress.IPv4Network("192.0.2.0/30")


# Of other labs, and of the pods, engines and containers of tests beside this one.
_OTHERS = re.compile(r"cs[0-9a-f]{10}|credspec-.+|cni-.+|cni0|veth.+|br-.+|docker.+|swarm.+")


def surroundings(lab: Lab) -> dict[str, object]:
    """Everything that a further lab of this run could leave: names, processes, files of /etc.

    Labs of other test runs beside this one come and go: what is only theirs does not count. No lab
    takes logons as root, whose replay cache is that of any other test that does.
    """
    further = [f"{lab.name}-half", f"{lab.name}-second"]
    networks = [LabNetwork.of(name, FREE) for name in (lab.name, *further)]
    ours = {name for network in networks for name in (network.host_interface, network.namespace)}
    roots = [f"{root}/{name}" for root in (STATE_ROOT, RUN_ROOT) for name in further]

    def printed(*command: str) -> list[dict[str, str]]:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(found or "[]")

    def only_ours(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if name in ours or not _OTHERS.fullmatch(name))

    def is_others(mount: Path) -> bool:
        if mount.parent == Path("/run/netns"):
            return mount.name not in only_ours([mount.name])
        below = mount.relative_to(RUN_ROOT).parts if mount.is_relative_to(RUN_ROOT) else ()
        return bool(below) and below[0] not in (lab.name, *further)

    etc = hashlib.sha256()
    # Not /etc/mtab, which is a list of all that is mounted: of that, see below.
    for path in sorted(p for p in Path("/etc").rglob("*") if p.is_file() and p.name != "mtab"):
        etc.update(str(path).encode() + path.read_bytes())
    return {
        "links": only_ours(link["ifname"] for link in printed("ip", "-j", "link")),
        "namespaces": only_ours(found["name"] for found in printed("ip", "-j", "netns")),
        "directories": [root for root in roots if Path(root).exists()],
        "mounts": sorted(str(p) for p in map(Path, mount_points()) if not is_others(p)),
        "replay caches": sorted(p.name for p in Path("/var/tmp").glob("krb5_[!0]*")),  # noqa: S108
        "processes": [line for line in command_lines() if any(root in line for root in roots)],
        "etc": etc.hexdigest(),
    }


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text("utf-8", "replace").replace("\0", " ")


@pytest.fixture(scope="module")
def before(lab: Lab) -> dict[str, object]:
    return surroundings(lab)  # the domain of the run is part of what was there before


def test_a_lab_that_fails_halfway_leaves_nothing(
    lab: Lab, before: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(half: Lab) -> None:
        raise CredspecError.of("test", f"{half.name} fails here")

    monkeypatch.setattr(provisioning, "_populate", fail)
    with pytest.raises(CredspecError, match="-half fails here"):
        provisioning.up(f"{lab.name}-half", realm="HALF.TEST")
    assert surroundings(lab) == before


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


def test_what_sambas_clients_keep_stays_in_the_lab(lab: Lab) -> None:
    """Else a lab with the same names would take this one's addresses from there."""
    command = lab.exec_argv(["sh", "-c", "ls /run/samba; smbclient -N -L //$0; ls /run/samba"])
    host = Path("/run/samba")
    names = sorted(host.iterdir())
    found = subprocess.run(
        [*command, lab.dc_host], capture_output=True, text=True, check=False, timeout=120
    )
    assert found.stdout.endswith("\ngencache.tdb\n"), found.stderr
    assert found.stdout.count("gencache.tdb") == 1
    assert sorted(host.iterdir()) == names


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
    lab: Lab, before: dict[str, object], cache: Path
) -> None:
    second = provisioning.up(f"{lab.name}-second", realm="SECOND.TEST")
    try:
        assert second.is_running()
        assert lab.is_running()
        assert second.dc_address != lab.dc_address
        found = surroundings(lab)
        for what in ("links", "namespaces", "directories", "mounts", "processes"):
            assert found[what] != before[what]
        for one in (lab, second):
            asked = one.exec_argv(["getent", "hosts", one.dc_host])
            shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            assert shown.split()[0] == one.dc_address
        check_a_copy(second, f"{lab.name}-half")
    finally:
        second.down()
    second.down()
    assert surroundings(lab) == before
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]
    domain_cache.clear()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv(domain_cache.VARIABLE, str(directory))
    return directory


def check_a_copy(origin: Lab, name: str) -> None:
    """A lab from the cache, beside the one that it was copied from."""
    steps: list[str] = []
    copy = provisioning.up(name, realm=origin.realm, progress=steps.append)
    try:
        assert steps[0] == "Copied the domain SECOND.TEST from the cache"
        for one in (origin, copy):
            resolver = DnsResolver(5.0, nameserver=one.dc_address)
            for host in ("dc1", "db", "web", "gc._msdcs"):
                assert resolver.addresses(f"{host}.second.test") == [one.dc_address]
            [record] = resolver.srv("_ldap._tcp.dc._msdcs.second.test")
            assert record.target == "dc1.second.test"
        assert copy.host_keytab.read_bytes() == origin.host_keytab.read_bytes()
        assert copy.admin_password == origin.admin_password
        # Nothing of it is the other lab's: not its paths, not its addresses.
        configured = copy.smb_conf.read_text()
        assert f"{origin.directory}/" not in configured
        assert configured.count(f"{copy.directory}/") > 3
        asked = "credspec check --account WebApp02 --directory-only"
        assert shell(copy, asked).returncode == 0
        trusted = f"LDAPTLS_CACERT={copy.directory}/ca.pem ldapsearch -x -s base -b ''"
        assert shell(copy, f"{trusted} -H ldaps://dc1.second.test").returncode == 0
        copy.samba_tool("domain", "exportkeytab", f"{copy.directory}/k", "--principal=WebApp04$")
        logged_on = shell(
            copy,
            f"export KRB5CCNAME=MEMORY: KRB5_CLIENT_KTNAME={copy.directory}/k; "
            "psql 'host=db.second.test user=WebApp04$ dbname=demo' -Atc 'select current_user'",
        )
        assert logged_on.stdout == "WebApp04$\n", logged_on.stderr
    finally:
        copy.down()


def shell(lab: Lab, line: str) -> subprocess.CompletedProcess[str]:
    command = lab.exec_argv(["sh", "-c", f'PATH="{CREDSPEC.parent}:$PATH"; {line}'])
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_lab_that_is_interrupted_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    before = surroundings(lab)
    command = [str(CREDSPEC), "lab", "up", "--name", f"{lab.name}-half", "--realm", "HALF.TEST"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.read(1):
            assert process.poll() is None
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(120) == 130, said
    assert "Interrupted: removing what was begun" in said
    assert surroundings(lab) == before


def test_a_further_account_is_enabled_and_the_labs_host_may_read_it(lab: Lab) -> None:
    def credspec(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(CREDSPEC), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    added = credspec("lab", "account", "add", f"--name={lab.name}", "WebApp09")
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout.startswith("WebApp09: credspec lab exec -- credspec new WebApp09 ")
    checked = credspec("check", "--account=WebApp09", "--directory-only", "--output=json")
    assert checked.returncode == 0, checked.stdout
    assert "ticket" in {step["step"] for step in json.loads(checked.stdout)["steps"]}
    twice = credspec("lab", "account", "add", f"--name={lab.name}", "WebApp09")
    assert (twice.returncode, "[lab-samba-tool]" in twice.stderr) == (1, True)
    long = credspec("lab", "account", "add", f"--name={lab.name}", "A" * 16)
    assert (long.returncode, "[lab-account-invalid]" in long.stderr) == (2, True)
    lab.samba_tool("service-account", "delete", "--name=WebApp09")


def test_a_spec_of_a_disabled_account_warns(lab: Lab, tmp_path: Path) -> None:
    made = subprocess.run(
        [str(CREDSPEC), "new", "Disabled01", "--path", str(tmp_path / "x.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0
    assert made.stderr.endswith("[account-disabled]\n")
