"""Containers of every kind that people run, with runc and with crun below the shim."""

from __future__ import annotations

import io
import tarfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

IMAGE = "kerberos-client"
OPTION = '--security-opt "credentialspec=file://WebApp01.json"'
# What the gateway makes of the option, for the runtime that it does not choose.
BY_HAND = (
    "-e CREDSPEC=file://WebApp01.json --tmpfs /run/credspec -e KRB5CCNAME=/run/credspec/krb5cc"
)
RUNTIMES = {
    "runc": f"docker run {OPTION}",
    "crun": f"docker run --runtime credspec-crun {BY_HAND}",
}
SHOW = "sh -c 'klist && id -u'"


@pytest.fixture(params=RUNTIMES)
def run(request: pytest.FixtureRequest) -> str:
    return RUNTIMES[request.param]


@pytest.mark.parametrize(
    "options",
    [
        "--user 1000:1000",
        "--read-only",
        "--read-only --user 1000 --cap-drop ALL --security-opt no-new-privileges",
        "--network none",
        "--init",
        "--pid host --ipc host",
        "--tmpfs /run",
        "--tmpfs /run --read-only --user 1000",
        "--memory 64m --pids-limit 20",
        "-t",
    ],
)
def test_options(host: Any, run: str, options: str) -> None:
    shown = host.shell(f"{run} --rm {options} {IMAGE} {SHOW}")
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    expected = "1000" if "--user 1000" in options else "0"
    assert shown.stdout.split()[-1] == expected


def test_an_image_without_run(host: Any, run: str) -> None:
    """The mount point is made, also below a read-only root."""
    trimmed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(host.image)) as old,
        tarfile.open(fileobj=trimmed, mode="w") as new,
    ):
        for member in old:
            if member.name != "run":
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    host.engine.import_image(trimmed.getvalue(), "without-run")
    for options in ("", "--read-only"):
        shown = host.shell(f"{run} --rm {options} without-run klist")
        assert "WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr


def test_a_privileged_container(host: Any, run: str) -> None:
    """Where the machine lacks a capability, it fails as without a spec, and leaves nothing."""
    plain = host.shell(f"docker run --rm --privileged --runtime runc {IMAGE} id")
    shown = host.shell(f"{run} --rm --privileged {IMAGE} {SHOW}")
    assert (shown.returncode == 0) == (plain.returncode == 0)
    if plain.returncode == 0:
        assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    else:
        assert "caps" in shown.stderr


def test_pause_unpause_update_and_restart(host: Any, run: str) -> None:
    host.shell(f"{run} -d --name p1 {IMAGE} sleep 600")
    try:
        for line in ("pause", "unpause", "update --memory 128m --memory-swap 128m"):
            shown = host.shell(f"docker {line} p1")
            assert shown.returncode == 0, shown.stderr
        assert "WebApp01$" in host.shell("docker exec p1 klist").stdout
        assert host.shell("docker restart -t 0 p1").returncode == 0
        assert "WebApp01$" in host.shell("docker exec p1 klist").stdout
        assert host.leases() == [host.inspect("p1")["Id"]]
    finally:
        host.shell("docker rm -f p1")


def test_a_restart_policy_gets_a_lease_each_time(host: Any, run: str) -> None:
    line = "sh -c 'klist -s && echo has-tickets; sleep 0.2; exit 1'"
    host.shell(f"{run} -d --restart on-failure:2 --name r1 {IMAGE} {line}")
    try:
        end = time.monotonic() + 60
        while host.inspect("r1")["State"]["Status"] != "exited" and time.monotonic() < end:
            time.sleep(0.1)
        assert host.inspect("r1")["RestartCount"] == 2
        assert host.shell("docker logs r1").stdout == "has-tickets\n" * 3
    finally:
        host.shell("docker rm -f r1")


def test_a_checkpoint_is_refused_in_words(host: Any) -> None:
    """The runtime is asked directly, as containerd does: dockerd's own command is an experiment."""
    host.shell(f"{RUNTIMES['runc']} -d --name c1 {IMAGE} sleep 600")
    try:
        container = host.inspect("c1")["Id"]
        launcher = host.engine.directory / "libexec" / "credspec-runtime"
        root = host.engine.directory / "exec" / "runtime-runc" / "moby"
        if not root.is_dir():
            root = next(host.engine.directory.glob("exec/**/moby"))
        options = "--image-path /nowhere --leave-running"
        shown = host.shell(f"{launcher} --root {root} checkpoint {options} {container}")
        assert shown.returncode == 1
        assert "checkpoint-refused" in shown.stderr
        assert "tickets to the disk" in shown.stderr
        assert "WebApp01$" in host.shell("docker exec c1 klist").stdout
    finally:
        host.shell("docker rm -f c1")


def test_an_entrypoint_that_drops_privileges(host: Any, run: str) -> None:
    """Starts as root, serves as 1000: the owner is given by a label, or by hand."""
    wanted = "--label credspec.dev/owner=1000:1000 --label credspec.dev/mode=0440"
    if "crun" in run:
        wanted = "--tmpfs /run/credspec/mode=0440 "
        wanted += "--mount type=tmpfs,dst=/run/credspec/owner=1000:1000"
    line = 'stat -c "%a %u %g" /run/credspec /run/credspec/krb5cc'
    shown = host.shell(f"{run} --rm {wanted} {IMAGE} sh -c '{line}'")
    assert shown.stdout == "750 1000 1000\n440 1000 1000\n", shown.stderr
    host.shell(f"{run} -d {wanted} --name o1 {IMAGE} sleep 600")
    try:
        assert "WebApp01$" in host.shell("docker exec --user 1000 o1 klist").stdout
        assert "WebApp01$" in host.shell("docker exec --user 4321:1000 o1 klist").stdout
        assert host.shell("docker exec --user 4321:4321 o1 klist").returncode != 0
    finally:
        host.shell("docker rm -f o1")


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("credspec.dev/owner=app", "UID or UID:GID"),
        ("credspec.dev/mode=0777", "octal mode"),
        ("credspec.dev/keytab=perhaps", "true or false"),
    ],
)
def test_labels_that_are_not_understood(host: Any, label: str, text: str) -> None:
    shown = host.shell(f"docker run --rm {OPTION} --label {label} {IMAGE} true")
    assert shown.returncode == 125
    assert text in shown.stderr
    assert "[option-invalid]" in shown.stderr


def test_a_keytab_on_request(host: Any) -> None:
    wanted = "--label credspec.dev/keytab=true --user 1000"
    shown = host.shell(f"docker run --rm {OPTION} {wanted} {IMAGE} klist -k")
    assert "Keytab name: FILE:/run/credspec/krb5.keytab" in shown.stdout, shown.stderr
    assert "HTTP/web.example.test@EXAMPLE.TEST" in shown.stdout
    without = host.shell(f"docker run --rm {OPTION} {IMAGE} ls /run/credspec")
    assert without.stdout == "krb5.conf\nkrb5cc\n"


def test_all_accounts_of_a_spec(host: Any) -> None:
    made = host.shell(
        "credspec new WebApp01 --additional-account WebApp02 --additional-account WebApp03 "
        "--path ./three.json"
    )
    assert made.returncode == 0, made.stderr
    line = f"docker run --rm --user 1000 --dns {host.lab.dc_address} "
    line += f'--security-opt "credentialspec=file://three.json" {IMAGE} '
    whoami = f"ldapwhoami -Q -H ldap://{host.lab.dc_host}"
    inside = (
        f"{whoami}; for n in 1 2 3; do KRB5CCNAME=/run/credspec/krb5cc_webapp0$n {whoami}; done"
    )
    shown = host.shell(f"{line} sh -c '{inside}'")
    expected = [f"u:EXAMPLE\\WebApp0{n}$" for n in (1, 1, 2, 3)]
    assert shown.stdout.split() == expected, shown.stderr


def test_the_images_own_krb5_conf(host: Any) -> None:
    """It is left out, and a list that the user gives has it second."""
    conf = host.lab.specs_directory.parent / "image-krb5.conf"
    conf.write_text(
        "[libdefaults]\n ticket_lifetime = 4321\n[realms]\n OTHER.TEST = {\n  kdc = kdc.other\n }\n"
    )
    mounted = f"-v {conf}:/etc/krb5.conf:ro"
    both = "/run/credspec/krb5.conf:/etc/krb5.conf"
    for option, value in (("", "/run/credspec/krb5.conf"), (f"-e KRB5_CONFIG={both}", both)):
        shown = host.shell(
            f"docker run --rm {OPTION} {mounted} {option} --dns {host.lab.dc_address} {IMAGE} "
            f"sh -c 'ldapwhoami -Q -H ldap://{host.lab.dc_host}; echo $KRB5_CONFIG'"
        )
        assert "u:EXAMPLE\\WebApp01$" in shown.stdout, shown.stderr
        assert shown.stdout.split()[-1] == value
    own = host.shell(f"docker run --rm {OPTION} -e KRB5_CONFIG=/mine {IMAGE} env")
    assert "KRB5_CONFIG=/mine" in own.stdout.split("\n")


def test_an_image_cannot_choose_its_identity(host: Any) -> None:
    """Also with the shim as the default runtime, and a variable in the image."""
    host.engine.docker(
        "import", "-c", "ENV CREDSPEC=file://WebApp01.json", "-", "hostile", data=host.image
    )
    host.engine.docker(
        *("import", "-c", "ENV CREDSPEC_KEYTAB=true", "-", "grasping"), data=host.image
    )
    shown = host.shell("docker run --rm --runtime credspec hostile klist")
    assert shown.returncode == 125
    assert "[spec-carrier-unconfirmed]" in shown.stderr
    asked = host.shell(f"docker run --rm {OPTION} hostile klist")
    assert "WebApp01$" in asked.stdout, asked.stderr
    listed = host.shell(f"docker run --rm {OPTION} grasping ls /run/credspec")
    assert listed.stdout == "krb5.conf\nkrb5cc\n"


def test_a_container_that_attacks_its_directory_harms_nobody(host: Any) -> None:
    """Full of files, links and directories, files held open, while tickets are replaced."""
    host.shell(f"docker run -d {OPTION} --name good {IMAGE} sleep 600")
    attack = (
        "cd /run/credspec; while :; do rm -rf krb5cc; ln -s /etc/passwd krb5cc; ln -s / krb5.conf; "
        "mv krb5cc x; mkdir -p krb5cc; : > y; dd if=/dev/zero of=z bs=64k count=64 2>/dev/null; "
        "exec 9<z; rm -f z; ln -sf /proc/1/root/etc/shadow krb5cc; done"
    )
    host.shell(f"docker run -d {OPTION} --name bad {IMAGE} sh -c '{attack}'")
    try:
        passwd = host.shell("docker exec bad cat /etc/passwd").stdout
        for _ in range(4):
            # A restart finds tickets missing and has them replaced, in all containers.
            host.stop("agent")
            host.start("agent")
            time.sleep(1)
        assert "WebApp01$" in host.shell("docker exec good klist").stdout
        assert host.shell("docker exec bad cat /etc/passwd").stdout == passwd
        # A new container is served as quickly as ever.
        assert "WebApp01$" in host.shell(f"docker run --rm {OPTION} {IMAGE} klist").stdout
    finally:
        host.shell("docker rm -f good bad")


def shown_tickets(host: Any, name: str) -> str:
    """Return what klist in a container has printed, as soon as that is there."""
    end = time.monotonic() + 60
    while "krbtgt/" not in (shown := host.engine.docker("logs", name).stdout.decode()):
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    return shown


def test_two_hundred_containers_of_five_accounts(host: Any) -> None:
    """Started together and stopped together: the right identity each, one acquisition each."""
    accounts = [f"WebApp0{n}" for n in range(1, 6)]
    for account in accounts:
        if not (host.lab.specs_directory / f"{account}.json").exists():
            assert host.shell(f"credspec new {account} --path ./{account}.json").returncode == 0
    host.forget_identities()
    client = f"docker -H unix://{host.config.gateway_socket}"
    containers = [(f"many{n}", accounts[n % 5]) for n in range(200)]

    def start(container: tuple[str, str]) -> tuple[str, str]:
        name, account = container
        option = f'--security-opt "credentialspec=file://{account}.json"'
        line = f"{client} run -d --network none {option} --name {name} {IMAGE}"
        shown = host.shell(f"{line} sh -c 'klist; sleep 600'")
        return name, shown.stderr

    try:
        with ThreadPoolExecutor(16) as pool:
            failures = [(n, e) for n, e in pool.map(start, containers) if e]
        assert failures == []
        assert host.acquisitions() == 5
        leases = host.agent.get("/v1/leases")["leases"]
        assert Counter(lease["default_account"] for lease in leases) == dict.fromkeys(accounts, 40)
        with ThreadPoolExecutor(8) as pool:
            logs = pool.map(lambda c: shown_tickets(host, c[0]), containers)
            for (_, account), log in zip(containers, logs, strict=True):
                assert f"Default principal: {account}$@EXAMPLE.TEST" in log
    finally:
        host.engine.docker("rm", "-f", *(name for name, _ in containers), check=False)
    end = time.monotonic() + 60
    while host.leases() and time.monotonic() < end:
        time.sleep(0.2)
    assert (host.leases(), host.mounts()) == ([], [])
