"""What a service's configuration names, found before its unit hides it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from credspec.errors import UsageError
from credspec.setup.systemd import AGENT_UNIT, FETCHER_UNITS, GATEWAY_UNIT, SystemdSetup
from credspec.setup.unit_paths import paths_of_configuration, service_environment

PROGRAM = Path(sys.executable).with_name("credspec")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_variables_of_drop_ins(tmp_path: Path) -> None:
    vendor, local = tmp_path / "usr", tmp_path / "etc"
    name = f"{AGENT_UNIT}.d"
    write(vendor / name / "10-a.conf", "[Service]\nEnvironment=A=1 B=2\nEnvironment=C=3\n")
    write(vendor / name / "20-b.conf", "[Service]\nEnvironment=A=vendor\n")
    # A drop-in of the same name takes the other's place.
    write(local / name / "20-b.conf", '[Service]\n  Environment = "A=with space"\n')
    write(local / name / "30-c.conf", '[Service]\nEnvironment="unfinished\nEnvironmentFile=/x\n')
    (local / name / "40-d.conf").write_bytes(b"\xff")
    found = service_environment(AGENT_UNIT, (vendor, local))
    assert found == {"A": "with space", "B": "2", "C": "3"}
    assert service_environment(GATEWAY_UNIT, (vendor, local)) == {}


def test_an_empty_assignment_forgets_what_was_before(tmp_path: Path) -> None:
    write(tmp_path / f"{AGENT_UNIT}.d/a.conf", "Environment=A=1\nEnvironment=\nEnvironment=B=2\n")
    assert service_environment(AGENT_UNIT, (tmp_path,)) == {"B": "2"}


def test_paths_of_a_configuration(tmp_path: Path) -> None:
    keytab = write(tmp_path / "keys/real", "")
    link = tmp_path / "krb5.keytab"
    link.symlink_to(keytab)
    text = f'spec_directory = "/srv/specs"\n[host_identity]\nkeytab = "{link}"\n'
    config = write(tmp_path / "config.toml", f'{text}[policy]\nusers = ["nobody"]\n')
    environment = {"CREDSPEC_CONFIG": str(config), "KRB5_CONFIG": f"/var/x.conf:{tmp_path}/y"}
    paths, has_users = paths_of_configuration(environment)
    assert has_users
    assert paths >= {config, Path("/srv/specs"), link, keytab, Path("/var/x.conf")}
    paths, has_users = paths_of_configuration({"CREDSPEC_CONFIG": str(tmp_path / "none")})
    assert not has_users
    assert Path("/etc/credspec/specs") in paths


def test_what_a_unit_hides_is_bound_into_it(tmp_path: Path) -> None:
    setup = SystemdSetup(
        program=PROGRAM,
        hidden=frozenset(),
        needed=frozenset(map(Path, ("/srv/specs/x.json", "/run/x/keytab", "/etc/krb5.conf"))),
    )
    gateway, drop_in = setup.text(GATEWAY_UNIT), setup.text(FETCHER_UNITS[1])
    # A file's directory: a file that is replaced would stay the old one.
    assert "\nBindReadOnlyPaths=-/run/x\nBindReadOnlyPaths=-/srv/specs\n" in gateway
    assert drop_in.endswith("\nBindReadOnlyPaths=-/run/x\nBindReadOnlyPaths=-/srv/specs\n")
    assert "/etc/krb5.conf" not in gateway + drop_in
    assert "/srv/specs" not in setup.text(AGENT_UNIT)
    del tmp_path


def test_a_file_right_below_a_hidden_directory() -> None:
    setup = SystemdSetup(program=PROGRAM, needed=frozenset({Path("/run/keytab")}))
    assert "\nBindReadOnlyPaths=-/run/keytab\n" in setup.text(FETCHER_UNITS[1])


def test_users_of_rootless_engines() -> None:
    assert "BindPaths=-/run/user" not in SystemdSetup(program=PROGRAM).text(FETCHER_UNITS[1])
    text = SystemdSetup(program=PROGRAM, has_users=True).text(FETCHER_UNITS[1])
    assert text.endswith("\nBindPaths=-/run/user\nReadOnlyPaths=-/run/user/0\n")


@pytest.mark.parametrize("path", ["/run/a b/x", "/run/a%b/x", "/run/a\nb/x", "/run/a:b/x"])
def test_paths_that_cannot_be_in_a_unit(path: str) -> None:
    setup = SystemdSetup(program=PROGRAM, needed=frozenset({Path(path)}))
    with pytest.raises(UsageError, match="setup-path"):
        setup.text(GATEWAY_UNIT)
    assert setup.text(AGENT_UNIT)
