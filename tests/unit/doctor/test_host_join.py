"""What files of hosts say of their join. The files are simulated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from credspec.doctor import join_steps
from credspec.doctor.host_join import HostJoin, look_at_join

KEYTAB = Path("/etc/krb5.keytab")
SSSD = """[sssd]
domains = contoso.com
[domain/contoso.com]
id_provider = ad
"""
REALMD = "realmd_tags = manages-system joined-with-adcli\n"
WINBIND = "[global]\n  Security = ADS\n  realm = CONTOSO.COM\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.startswith("usr/"):
            path.chmod(0o755)


def run(root: Path, *programs: str) -> None:
    write(root, {f"proc/{n}/comm": f"{name}\n" for n, name in enumerate(programs, 100)})


def codes(join: HostJoin) -> list[str]:
    return [problem.code for problem in join.problems]


def test_adcli_leaves_nothing_but_the_keytab(root: Path) -> None:
    join = look_at_join(KEYTAB, root)
    assert join.tool.startswith("adcli or another tool")
    assert (join.rotators, codes(join)) == ((), [])


def test_realmd_and_sssd(root: Path) -> None:
    write(root, {"etc/sssd/sssd.conf": SSSD + REALMD, "usr/sbin/adcli": ""})
    run(root, "sssd")
    join = look_at_join(KEYTAB, root)
    assert join.tool == "realmd with adcli, used by SSSD"
    assert join.rotators == ("SSSD (adcli update, when it is 30 days old)",)
    assert codes(join) == []


@pytest.mark.parametrize(
    ("option", "programs", "adcli"),
    [
        ("ad_maximum_machine_account_password_age = 0\n", ("sssd",), True),
        ("", (), True),
        ("", ("sssd",), False),
    ],
)
def test_sssd_that_does_not_change_it(
    root: Path, option: str, programs: tuple[str, ...], adcli: bool
) -> None:
    write(root, {"etc/sssd/conf.d/ad.conf": SSSD + option})
    if adcli:
        write(root, {"usr/sbin/adcli": ""})
    run(root, *programs)
    assert look_at_join(KEYTAB, root).rotators == ()


def test_sssd_that_updates_another_keytab(root: Path) -> None:
    other = "krb5_keytab = /var/lib/sss/keytab\n"
    write(root, {"etc/sssd/sssd.conf": SSSD + other, "usr/sbin/adcli": ""})
    run(root, "sssd")
    assert codes(look_at_join(KEYTAB, root)) == ["join-keytab-other"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["join-keytab-not-updated"]),
        ("kerberos method = secrets only\n", ["join-keytab-not-updated"]),
        ("KERBEROS  Method = Secrets and Keytab\n", []),
        ("sync machine password to keytab = /etc/krb5.keytab:account_name\n", []),
        (
            "kerberos method = dedicated keytab\ndedicated keytab file = FILE:/etc/samba.keytab\n",
            ["join-keytab-other"],
        ),
        ("machine password timeout = 0\n", None),
    ],
)
def test_winbind(root: Path, options: str, expected: list[str] | None) -> None:
    write(root, {"etc/samba/smb.conf": WINBIND + options})
    write(root, {"var/lib/samba/private/secrets.tdb": ""})
    run(root, "winbindd")
    join = look_at_join(KEYTAB, root)
    assert join.tool == "net ads join, used by winbind"
    assert len(join.rotators) == (0 if expected is None else 1)
    assert codes(join) == (expected or [])


def test_a_share_of_its_own_section_is_not_global(root: Path) -> None:
    write(root, {"etc/samba/smb.conf": "[global]\n[data]\nsecurity = ads\n"})
    write(root, {"var/lib/samba/private/secrets.tdb": ""})
    assert look_at_join(KEYTAB, root).tool.startswith("adcli or")


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("etc/cron.d/join", "0 3 * * 0 root /usr/sbin/adcli update\n", "adcli update"),
        ("etc/cron.weekly/join", "#!/bin/sh\nnet ads changetrustpw -P\n", "net ads changetrustpw"),
        ("etc/systemd/system/a.service", "ExecStart=msktutil --auto-update\n", "msktutil --auto"),
    ],
)
def test_schedules(root: Path, name: str, text: str, command: str) -> None:
    write(root, {name: text, "etc/cron.daily/other": "# adcli update is not run here\n"})
    (found,) = look_at_join(KEYTAB, root).rotators
    assert found.startswith(command)
    assert found.endswith(f" in /{name}")


def test_two_who_change_it(root: Path) -> None:
    write(root, {"etc/sssd/sssd.conf": SSSD, "usr/sbin/adcli": "", "etc/samba/smb.conf": WINBIND})
    write(root, {"var/lib/samba/private/secrets.tdb": "", "etc/crontab": "adcli update\n"})
    run(root, "sssd", "winbindd")
    join = look_at_join(KEYTAB, root)
    assert len(join.rotators) == 3
    assert "join-two-rotators" in codes(join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(sssd=st.binary(max_size=300), smb=st.binary(max_size=300), cron=st.binary(max_size=100))
def test_files_of_any_content(root: Path, sssd: bytes, smb: bytes, cron: bytes) -> None:
    write(root, {"etc/sssd/sssd.conf": "", "etc/samba/smb.conf": "", "etc/cron.d/a": ""})
    (root / "etc/sssd/sssd.conf").write_bytes(b"[domain/x]\nid_provider = ad\n" + sssd)
    (root / "etc/samba/smb.conf").write_bytes(b"[global]\n" + smb)
    (root / "etc/cron.d/a").write_bytes(cron)
    assert look_at_join(KEYTAB, root).tool


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_an_agent_that_sees_only_the_keytab_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container does to which the file alone was given, not its directory."""
    keytab = tmp_path / "krb5.keytab"
    keytab.write_text("old")
    inside = tmp_path / "container"
    (inside / keytab.parent.relative_to("/")).mkdir(parents=True)
    target = inside / keytab.relative_to("/")
    target.touch()
    code = (
        f"import os, sys; os.chroot({str(inside)!r}); print('ready', flush=True); sys.stdin.read()"
    )
    script = 'mount --bind "$0" "$1" && exec "$2" -c "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, str(keytab), str(target)]
    command += [sys.executable, code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            monkeypatch.setattr(join_steps, "_main_process", lambda _: process.pid)
            assert join_steps._agents_keytab(keytab)[1] == ()
            (tmp_path / "new").write_text("new")
            (tmp_path / "new").replace(keytab)
            text, (problem,) = join_steps._agents_keytab(keytab)
            assert text == "the agent does not see it"
            assert problem.code == "join-keytab-not-followed"
        finally:
            process.kill()
