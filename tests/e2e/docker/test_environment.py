"""What programs find in a container's environment, and those that drop it in /etc/krb5.conf."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from credspec.lab.namespaces import Plan, command_in

IMAGE = "kerberos-client"
OPTION = '--security-opt "credentialspec=file://WebApp01.json"'
BY_HAND = "--runtime credspec -e CREDSPEC=file://WebApp01.json --tmpfs /run/credspec"
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"
OURS = {"KRB5CCNAME": "/run/credspec/krb5cc", "KRB5_CONFIG": "/run/credspec/krb5.conf"}
LINK = "etc/krb5.conf"


def variables(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs if name.startswith("KRB5")}


def image_with(host: Any, name: str, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    """Import the client image with further files, and return its name."""
    changed = io.BytesIO(host.image)
    with tarfile.open(fileobj=changed, mode="a") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    host.engine.import_image(changed.getvalue(), name)
    return name


@pytest.fixture
def image_with_variables(host: Any) -> Iterator[str]:
    """An image that sets two of the variables itself."""
    name = "with-variables"
    host.engine.docker("create", "--name", "source", IMAGE, "sh")
    changes = ("ENV KRB5CCNAME=/image/cc", "ENV KRB5_CONFIG=/image/krb5.conf")
    options = [part for change in changes for part in ("--change", change)]
    host.engine.docker("commit", *options, "source", name)
    host.engine.docker("rm", "source")
    yield name
    host.engine.docker("rmi", "-f", name)


@pytest.mark.parametrize("keytab", ["", "--label credspec.dev/keytab=true"])
def test_paths_are_bare_and_each_is_one_file(host: Any, keytab: str) -> None:
    found = variables(host.shell(f"docker run --rm {OPTION} {keytab} {IMAGE} env").stdout)
    names = {"KRB5_KTNAME", "KRB5RCACHEDIR"} if keytab else set()
    assert found.keys() == OURS.keys() | names
    assert not any(":" in value for value in found.values())
    assert found.items() >= OURS.items()


@pytest.mark.parametrize("image", [IMAGE, "with-variables"])
@pytest.mark.parametrize(
    "options",
    [
        "",
        "-e KRB5CCNAME=/mine",
        "-e KRB5_CONFIG=/mine",
        "-e KRB5CCNAME=FILE:/a -e KRB5_CONFIG=/a:/b -e KRB5_KTNAME=/c",
        "-e KRB5_KTNAME=/mine --label credspec.dev/keytab=true",
    ],
)
def test_what_the_user_or_the_image_sets_stays_also_for_exec(
    host: Any, image_with_variables: str, image: str, options: str
) -> None:
    run = f"docker run -d --name env1 {OPTION} {options} {image} sh -c 'env; echo shown; sleep 600'"
    assert host.shell(run).returncode == 0
    exec_ = variables(host.shell("docker exec env1 env").stdout)
    end = time.monotonic() + 60
    while "shown" not in (shown := host.shell("docker logs env1").stdout):
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    first = variables(shown)
    host.shell("docker rm -f env1")
    words = options.split()
    users = dict(word.split("=", 1) for word in words if word.startswith("KRB5"))
    images = {"KRB5CCNAME": "/image/cc", "KRB5_CONFIG": "/image/krb5.conf"}
    expected = OURS | (images if image != IMAGE else {}) | users
    assert first.items() >= expected.items()
    assert exec_ == first


def test_without_the_gateway_the_same_rule_holds(host: Any, image_with_variables: str) -> None:
    shown = host.shell(f"docker run --rm {BY_HAND} -e KRB5_CONFIG=/mine with-variables env")
    expected = {"KRB5CCNAME": "/image/cc", "KRB5_CONFIG": "/mine"}
    assert variables(shown.stdout) == expected, shown.stderr


@pytest.mark.parametrize(
    "options", ["", "--user 1000:1000", "--read-only", "--user 1000 --read-only --cap-drop ALL"]
)
def test_programs_without_environment_find_ticket_and_configuration(
    host: Any, options: str
) -> None:
    line = f"env -i klist && env -i kvno -q ldap/{host.lab.dc_host}"
    network = f"--dns {host.lab.dc_address}"
    shown = host.shell(f"docker run --rm {OPTION} {network} {options} {IMAGE} sh -c '{line}'")
    assert DEFAULT in shown.stdout, shown.stderr
    assert shown.returncode == 0, shown.stderr


def test_they_find_them_after_a_restart_and_a_refresh_of_the_file(host: Any) -> None:
    host.shell(f"docker run -d --name env1 {OPTION} {IMAGE} sleep 600")
    try:
        assert host.shell("docker restart -t 0 env1").returncode == 0
        shown = host.shell("docker exec env1 sh -c 'env -i klist; ls -l /etc/krb5.conf'")
        assert DEFAULT in shown.stdout, shown.stderr
        assert "/etc/krb5.conf -> /run/credspec/krb5.conf" in shown.stdout
        # What docs/runtimes/docker.md says is left in the container's own layer.
        changes = host.shell("docker diff env1").stdout.splitlines()
        assert {change for change in changes if "etc" in change} == {"C /etc", "A /etc/krb5.conf"}
    finally:
        host.shell("docker rm -f env1")


@pytest.mark.parametrize(
    "options", ["-v {0}:/etc:ro", "-v {0}/krb5.conf:/etc/krb5.conf:ro", "--tmpfs /etc"]
)
def test_what_the_user_mounts_there_stays(host: Any, tmp_path: Any, options: str) -> None:
    # Docker mounts these itself, over files that must be there.
    names = ["hostname", "hosts", "krb5.conf", "resolv.conf"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "krb5.conf").write_text("[libdefaults]\n default_realm = MINE\n")
    tmp_path.chmod(0o755)
    mounts = options.format(tmp_path)
    shown = host.shell(
        f"docker run --rm {OPTION} {mounts} {IMAGE} sh -c 'klist; cat /etc/krb5.conf'"
    )
    assert DEFAULT in shown.stdout, shown.stderr
    assert ("MINE" in shown.stdout) == ("tmpfs" not in options)
    assert "/run/credspec" not in shown.stdout.partition(DEFAULT)[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def _member(kind: bytes, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(LINK)
    info.type, info.mode, info.linkname = kind, mode, link
    return info


IMAGES_OWN = {
    "good": (_member(tarfile.REGTYPE), b"[libdefaults]\n default_realm = IMAGE\n"),
    "unreadable": (_member(tarfile.REGTYPE, 0), b"[libdefaults]\n"),
    "syntax": (_member(tarfile.REGTYPE), b"[libdefaults\n }{ = =\n"),
    "includes": (_member(tarfile.REGTYPE), b"include /nowhere\nincludedir /nowhere.d\n"),
    "empty": (_member(tarfile.REGTYPE), b""),
    "huge": (_member(tarfile.REGTYPE), b"# nothing\n" * 400_000),
    "directory": (_member(tarfile.DIRTYPE, 0o755), b""),
    "fifo": (_member(tarfile.FIFOTYPE), b""),
    "loop": (_member(tarfile.SYMTYPE, link="krb5.conf"), b""),
    "out": (_member(tarfile.SYMTYPE, link="../../../../root/out"), b""),
}


@pytest.mark.parametrize("kind", IMAGES_OWN)
def test_an_images_own_file_is_left_out_and_left_alone(host: Any, kind: str) -> None:
    name = image_with(host, f"own-{kind}", IMAGES_OWN[kind])
    line = f"klist && kvno -q ldap/{host.lab.dc_host}; ls -ld /etc/krb5.conf"
    user = "--user 1000"
    shown = host.shell(f"docker run --rm {OPTION} {user} {name} sh -c '{line}'")
    assert DEFAULT in shown.stdout, shown.stderr
    assert "kvno" not in shown.stderr
    assert "/run/credspec" not in shown.stdout.partition("/etc/krb5.conf")[2]


def test_an_alias_of_dns_is_found_where_the_typed_name_has_no_spn(host: Any) -> None:
    lab = host.lab
    record = [lab.network.address, lab.dns_domain, "portal", "CNAME", f"web.{lab.dns_domain}"]
    # The controller logs on with its own keys.
    command = ["samba-tool", "dns", "add", *record, "-P", "-s", str(lab.smb_conf)]
    plan = Plan(netns=lab.network.namespace, binds=lab.etc_files())
    subprocess.run(command_in(plan, command), check=True, capture_output=True)
    line = f"kvno -S HTTP portal.{lab.dns_domain}"
    shown = host.shell(f"docker run --rm {OPTION} --dns {lab.dc_address} {IMAGE} {line}")
    assert shown.returncode == 0, shown.stderr


def test_an_old_libkrb5_gets_a_file_that_it_reads(host: Any) -> None:
    """Simulated: a libkrb5 without what krb5 1.18 brought, in a directory that nobody loads."""
    info = tarfile.TarInfo("usr/local/lib/libkrb5.so.3")
    info.mode = 0o644
    name = image_with(host, "old-library", (info, b"\x7fELF of krb5 1.17"))
    new, old = (
        host.shell(f"docker run --rm {OPTION} {image} cat /run/credspec/krb5.conf").stdout
        for image in (IMAGE, name)
    )
    assert "dns_canonicalize_hostname* = fallback" in new
    assert "dns_canonicalize_hostname = false" in old
    assert "fallback" not in old
