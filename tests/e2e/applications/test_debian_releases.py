"""Clients of other Debian releases, each with what it has of MIT Kerberos, in both kinds.

The files of their packages, without any configuration, are the containers' root file system. Those
of this machine's release are in test_services_mode.py and test_broker_mode.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.machine.debian_bootstrap import extract_command

ME = "WebApp01$@EXAMPLE.TEST"
PACKAGES = (
    *("krb5-user", "ldap-utils", "libsasl2-modules-gssapi-mit", "curl", "postgresql-client"),
    *("base-files", "dash", "libc-bin"),
)
KERBEROS = {"bullseye": "1.18.3", "trixie": "1.21.3"}
SERVICES = {
    "services": "ldap/dc1.example.test,postgres/db.example.test,HTTP/intranet.example.test",
    "broker": "ldap/*.example.test,postgres/*.example.test,HTTP/*.example.test",
}

InRelease = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=KERBEROS)
def release(
    request: pytest.FixtureRequest,
    host,
    intranet: str,
    host_mounts: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Return the name of an image with a release's clients; 20 s each."""
    tar: Path = tmp_path_factory.mktemp("release") / f"{request.param}.tar"
    made = subprocess.run(
        [
            *("nsenter", f"--mount=/proc/self/fd/{host_mounts}"),
            *extract_command(request.param, PACKAGES, tar),
        ],
        check=False,
        capture_output=True,
        text=True,
        pass_fds=(host_mounts,),
    )
    assert made.returncode == 0, made.stderr[-3000:]
    host.engine.import_image(tar.read_bytes(), request.param)
    tar.unlink()
    return str(request.param)


@pytest.fixture(params=SERVICES)
def run(request: pytest.FixtureRequest, host, release: str) -> InRelease:
    labels = (
        f"--label credspec.dev/tickets={request.param} "
        f"--label credspec.dev/services={SERVICES[request.param]}"
    )
    spec = '--security-opt "credentialspec=file://WebApp01.json"'

    def in_container(command: str) -> subprocess.CompletedProcess[str]:
        return host.shell(
            f"docker run --rm {spec} {labels} --dns {host.lab.dc_address} {release} {command}"
        )

    return in_container


def test_kvno(run: InRelease, release: str) -> None:
    assert f"version {KERBEROS[release]}" in run("sh -c 'klist -V || klist.mit -V'").stdout
    shown = run("kvno ldap/dc1.example.test")
    assert shown.returncode == 0, shown.stderr
    assert run("kvno cifs/dc1.example.test").returncode == 1


def test_ldapwhoami(run: InRelease) -> None:
    shown = run("ldapwhoami -N -Q -Y GSSAPI -H ldap://dc1.example.test")
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_curl(run: InRelease, intranet: str) -> None:
    shown = run(f"curl -sS --fail --negotiate -u : {intranet}")
    assert shown.stdout.strip() == ME, shown.stderr


def test_psql(run: InRelease) -> None:
    line = (
        '\'exec /usr/lib/postgresql/*/bin/psql -tA -c "select current_user" '
        '"host=db.example.test user=WebApp01\\$ dbname=postgres gssencmode=require"\''
    )
    shown = run(f"sh -c {line}")
    assert shown.stdout == "WebApp01$\n", shown.stderr
