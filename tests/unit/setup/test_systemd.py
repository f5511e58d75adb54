"""The units as text, and what systemd's own tools say of them; systemctl is not run here."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from credspec.errors import CredspecError, UsageError
from credspec.setup import systemd as systemd_setup
from credspec.setup.systemd import AGENT_UNIT, FETCHER_UNITS, GATEWAY_UNIT, SystemdSetup

PROGRAM = Path(sys.executable).with_name("credspec")
UNITS = (AGENT_UNIT, GATEWAY_UNIT)
# What `systemd-analyze security` calls OK; 10 is a service without any protection.
MOST = {AGENT_UNIT: 2.4, GATEWAY_UNIT: 1.7}


def known_here(text: str) -> str:
    """Return a unit without what this systemd ignores, with a warning in its log."""
    shown = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True)
    is_newer = int(shown.stdout.split()[1]) >= 254
    return text if is_newer else text.replace("FileDescriptorStorePreserve=yes\n", "")


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(known_here(SystemdSetup(program=PROGRAM).text(request.param)))
    return path


def test_systemd_understands_every_line(unit: Path) -> None:
    # The gateway's unit wants others that are not on every machine.
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert unit.name not in checked.stderr
    assert checked.returncode == 0, checked.stderr


def test_the_exposure_that_systemd_computes(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    score = re.search(r"exposure level for \S+: ([0-9.]+)", shown)
    assert score is not None, shown
    with capsys.disabled():
        print(f"\n{unit.name}: exposure {score[1]} ", end="")  # noqa: T201 - it is to be seen
    assert float(score[1]) <= MOST[unit.name]


@pytest.mark.parametrize("program", ["credspec", "/opt/my programs/credspec", "/opt/$x/credspec"])
def test_programs_that_systemd_would_not_start(program: str) -> None:
    with pytest.raises(UsageError, match="setup-program"):
        SystemdSetup(program=Path(program)).text(AGENT_UNIT)


def test_an_installation_below_tmp_is_shown_to_the_service() -> None:
    hidden = frozenset({Path("/x/venv"), Path("/x/src")})
    text = SystemdSetup(program=Path("/x/venv/bin/credspec"), hidden=hidden).text(AGENT_UNIT)
    assert "\nBindReadOnlyPaths=/x/src\nBindReadOnlyPaths=/x/venv\n" in text
    assert "\nBindReadOnlyPaths" not in SystemdSetup(
        program=Path("/opt/bin/credspec"), hidden=frozenset()
    ).text(AGENT_UNIT)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    setup = SystemdSetup(program=PROGRAM, units=UNITS, unit_directory=tmp_path)
    assert len(setup.apply(dry_run=True)) == 4
    assert list(tmp_path.iterdir()) == []
    assert setup.undo(dry_run=True) == []


def test_what_is_installed_already_is_left_alone(tmp_path: Path) -> None:
    setup = SystemdSetup(program=PROGRAM, unit_directory=tmp_path)
    (tmp_path / AGENT_UNIT).write_text(setup.text(AGENT_UNIT))
    assert setup.apply() == []


def test_without_systemd_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credspec.setup.systemd._RUNNING_SYSTEMD", tmp_path / "absent")
    with pytest.raises(CredspecError, match="systemd-missing"):
        SystemdSetup(program=PROGRAM, unit_directory=tmp_path).apply()
    assert list(tmp_path.iterdir()) == []


def test_in_place_of_credentials_fetcher(tmp_path: Path) -> None:
    setup = SystemdSetup(program=PROGRAM, units=(AGENT_UNIT, *FETCHER_UNITS))
    for unit in setup.units:
        path = tmp_path / unit
        path.parent.mkdir(exist_ok=True)
        path.write_text(known_here(setup.text(unit)))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / AGENT_UNIT],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )
    assert checked.returncode == 0, checked.stderr
    assert str(tmp_path) not in checked.stderr
    (tmp_path / AGENT_UNIT).write_text(setup.text(AGENT_UNIT))
    escaped = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", "/var/credentials-fetcher/krbdir"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert escaped == FETCHER_UNITS[0]
    again = SystemdSetup(program=PROGRAM, units=setup.units, unit_directory=tmp_path)
    assert again.apply() == []
    (tmp_path / FETCHER_UNITS[1]).unlink()
    assert again.apply(dry_run=True) == [
        f"wrote {tmp_path / FETCHER_UNITS[1]}",
        f"enabled and started {AGENT_UNIT}",
    ]


@pytest.fixture
def packaged(tmp_path: Path) -> SystemdSetup:
    """As after the installation of the distribution package."""
    setup = SystemdSetup(
        program=Path("/usr/bin/credspec"),
        units=UNITS,
        unit_directory=tmp_path / "etc",
        packaged_units=tmp_path / "usr",
        hidden=frozenset(),
    )
    for directory in (setup.unit_directory, setup.packaged_units):
        directory.mkdir()
    for unit in UNITS:
        (setup.packaged_units / unit).write_text(setup.text(unit))
    return setup


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch, packaged: SystemdSetup) -> list[tuple[str, ...]]:
    """What is asked of systemctl, which is simulated."""
    asked: list[tuple[str, ...]] = []
    wants = packaged.unit_directory / "multi-user.target.wants"

    def simulated(*arguments: str) -> None:
        asked.append(arguments)
        for unit in arguments[1:] if arguments[0] == "enable" else ():
            wants.mkdir(exist_ok=True)
            (wants / unit).unlink(missing_ok=True)
            (wants / unit).symlink_to(packaged.packaged_units / unit)
        for unit in arguments[2:] if arguments[0] == "disable" else ():
            (wants / unit).unlink(missing_ok=True)

    monkeypatch.setattr("credspec.setup.systemd._systemctl", simulated)
    monkeypatch.setattr("credspec.setup.systemd._require_systemd", lambda: None)
    return asked


def test_a_packaged_unit_is_enabled_and_not_written_again_simulated(
    packaged: SystemdSetup, systemctl: list[tuple[str, ...]]
) -> None:
    assert packaged.apply(dry_run=True) == packaged.apply()
    assert not (packaged.unit_directory / AGENT_UNIT).exists()
    assert ("enable", *UNITS) in systemctl
    assert packaged.apply() == []
    assert packaged.undo() == [f"stopped and disabled {unit}" for unit in UNITS]
    assert packaged.undo() == []


def test_what_a_packaged_unit_lacks_is_a_drop_in_simulated(
    packaged: SystemdSetup, systemctl: list[tuple[str, ...]]
) -> None:
    del systemctl
    needing = dataclasses.replace(packaged, needed=frozenset({Path("/srv/credspec/specs/x")}))
    drop_in = packaged.unit_directory / f"{GATEWAY_UNIT}.d/credspec-setup.conf"
    needing.apply()
    assert "[Service]\nBindReadOnlyPaths=-/srv/credspec/specs\n" in drop_in.read_text()
    assert not (packaged.unit_directory / GATEWAY_UNIT).exists()
    assert needing.apply() == []
    packaged.apply()  # the configuration does not name it any more
    assert not drop_in.parent.exists()


def test_units_written_before_the_package_came_give_way_to_its_own_simulated(
    packaged: SystemdSetup, systemctl: list[tuple[str, ...]]
) -> None:
    del systemctl
    (packaged.unit_directory / AGENT_UNIT).write_text("[Service]\nExecStart=/opt/credspec agent\n")
    assert f"removed {packaged.unit_directory / AGENT_UNIT}" in packaged.apply()
    assert not (packaged.unit_directory / AGENT_UNIT).exists()


def test_another_installation_does_not_use_the_package_s_units(packaged: SystemdSetup) -> None:
    other = dataclasses.replace(packaged, program=Path("/opt/venv/bin/credspec"))
    assert f"wrote {packaged.unit_directory / AGENT_UNIT}" in other.apply(dry_run=True)


def test_an_installation_is_known_by_every_name_that_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uv and pyenv make them: links to links, each of which the service must see."""
    for name in ("one/bin", "two/bin", "three/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "three/bin/python3.13").touch()
    (tmp_path / "two/bin/python3").symlink_to("../../three/bin/python3.13")
    (tmp_path / "one/bin/python").symlink_to(tmp_path / "two/bin/python3")
    monkeypatch.setattr(systemd_setup.sys, "executable", str(tmp_path / "one/bin/python"))
    monkeypatch.setattr(systemd_setup.sys, "prefix", str(tmp_path / "one"))
    found = systemd_setup._own_directories()
    assert {tmp_path / "one", tmp_path / "two/bin", tmp_path / "three/bin"} <= found


@pytest.mark.parametrize("path", ["/root/my venv", "/home/a%b", "/root/it's"])
def test_an_installation_that_no_unit_can_show_is_refused(path: str) -> None:
    for unit in UNITS:
        with pytest.raises(UsageError, match="setup-path"):
            SystemdSetup(program=PROGRAM, hidden=frozenset({Path(path)})).text(unit)
