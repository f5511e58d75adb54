"""The applications: programs of this machine in containers, and the services they log on to.

The image is a root file system of links; /usr comes from this machine, read-only, as a runtime of
any language would. Nothing else of the machine is in the containers, no krb5.conf least of all.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from credspec.lab.domain import Lab, run_tool
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.network import connects
from credspec.lab.service import Service, wait_for
from support.machine.application_runtimes import RUNTIMES

IMAGE = "applications"
EXAMPLES = Path(__file__).parents[3] / "docs/applications/examples"
"""The programs and configurations that the pages show; mounted at /app."""
ENDPOINT = Path(__file__).parents[2] / "support/servers/tds_endpoint.py"
SYSTEM_PYTHON = "/usr/bin/python3"

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n"
    "www-data:x:33:33::/:/bin/sh\n",
    "etc/group": "root:x:0:\napp:x:1000:\nwww-data:x:33:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # The name that was asked for is the one to authenticate, whatever reverse DNS says.
    "etc/ldap/ldap.conf": "SASL_NOCANON on\n",
    "etc/samba/smb.conf": "",
}
DIRECTORIES = (
    "usr",
    "tmp",
    "run",
    "proc",
    "sys",
    "dev",
    "app",
    "opt",
    "var/tmp",
    "etc/alternatives",
)
LINKS = ("bin", "sbin", "lib", "lib64")


class Run(Protocol):
    """Runs a command in a container."""

    def __call__(
        self, command: str, account: str | None = "WebApp01", options: str = ""
    ) -> subprocess.CompletedProcess[str]: ...


def image() -> bytes:
    """Return the root file system: no program, no library of its own."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name in DIRECTORIES:
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755
            tar.addfile(directory)
        for name in LINKS:
            if Path("/usr", name).exists():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
                tar.addfile(link)
        contents = {name: text.encode() for name, text in FILES.items()}
        # Python's ctypes finds libraries by the loader's list.
        contents["etc/ld.so.cache"] = Path("/etc/ld.so.cache").read_bytes()
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


@pytest.fixture(scope="session")
def run(host) -> Run:
    """``docker run`` with a spec, as a user of the lab's host types it."""
    host.engine.import_image(image(), IMAGE)

    def in_container(
        command: str, account: str | None = "WebApp01", options: str = ""
    ) -> subprocess.CompletedProcess[str]:
        spec = f'--security-opt "credentialspec=file://{account}.json"' if account else ""
        mounts = f"-v /usr:/usr:ro -v {EXAMPLES}:/app:ro"
        return host.shell(
            f"docker run --rm {spec} --dns {host.lab.dc_address} {mounts} {options} "
            f"{IMAGE} {command}"
        )

    return in_container


@pytest.fixture(scope="session")
def directory(lab: Lab) -> Path:
    """Where the services keep what is theirs; it goes with the lab."""
    found = lab.directory / "applications"
    found.mkdir(mode=0o711)
    return found


class Services:
    """Services beside the domain controller, on the lab's network, each with an account."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.running: list[Service] = []

    def name(self, host: str) -> None:
        """Let DNS name a host at the domain controller's address."""
        lab = self.lab
        record = [lab.network.address, lab.dns_domain, host, "A", lab.network.address]
        command = ["samba-tool", "dns", "add", *record, "-P", "-s", str(lab.smb_conf)]
        run_tool(command_in(Plan(netns=lab.network.namespace, binds=lab.etc_files()), command))

    def account(self, name: str, spn: str) -> Path:
        """Make an ordinary service account with an SPN; return its keytab."""
        self.lab.samba_tool("user", "create", name, "--random-password")
        self.lab.samba_tool("spn", "add", spn, name)
        dn = f"CN={name},CN=Users,{self.lab.domain_dn}"
        change = f"dn: {dn}\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\n"
        database = str(self.lab.directory / "dc/private/sam.ldb")
        run_tool(["ldbmodify", "-H", database], change + "msDS-SupportedEncryptionTypes: 24\n")
        keytab = self.directory / f"{name}.keytab"
        self.lab.samba_tool("domain", "exportkeytab", str(keytab), f"--principal={spn}")
        keytab.chmod(0o600)
        return keytab

    def start(self, name: str, command: list[str], port: int, **variables: str) -> Service:
        """Start a service and wait until it takes connections."""
        plan = Plan(
            netns=self.lab.network.namespace, binds=self.lab.etc_files(), own_processes=True
        )
        service = Service(name, self.directory)
        service.start(command_in(plan, command), dict(os.environ) | variables)
        self.running.append(service)
        wait_for(lambda: connects(self.lab.dc_address, port), name, service.log)
        return service


@pytest.fixture(scope="session")
def services(lab: Lab, directory: Path) -> Iterator[Services]:
    made = Services(lab, directory)
    yield made
    for service in made.running:
        service.stop()


@pytest.fixture(scope="session")
def intranet(services: Services) -> str:
    """Apache that asks for Negotiate, as ``intranet.<domain>``; returns its address."""
    name = f"intranet.{services.lab.dns_domain}"
    services.name("intranet")
    keytab = services.account("svc-intranet", f"HTTP/{name}")
    shutil.chown(keytab, "www-data")
    command = ["/usr/sbin/apache2", "-f", str(EXAMPLES / "negotiate.conf"), "-D", "FOREGROUND"]
    runtime = services.directory / "apache"
    runtime.mkdir()
    # Apache's user may be kept out of the checkout, as it is below root's home.
    pages = Path(shutil.copytree(EXAMPLES / "pages", services.directory / "pages"))
    for path in (pages, *pages.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    services.start(
        "apache",
        command,
        80,
        LISTEN="80",
        KEYTAB=str(keytab),
        RUNTIME=str(runtime),
        SERVER=name,
        PAGES=str(pages),
    )
    return f"http://{name}/"


@pytest.fixture(scope="session")
def sql_server(services: Services) -> Callable[[], str]:
    """The TDS endpoint as ``sql.<domain>``; returns what gives its log."""
    name = f"sql.{services.lab.dns_domain}"
    services.name("sql")
    spn = f"MSSQLSvc/{name}:1433"
    keytab = services.account("svc-sql", spn)
    command = [SYSTEM_PYTHON, str(ENDPOINT), services.lab.dc_address, "1433", str(keytab)]
    service = services.start("tds", [*command, f"{spn}@{services.lab.realm}"], 1433)
    return service.log.read_text


@pytest.fixture(scope="session")
def mssql_python() -> Path:
    """Microsoft's driver for Debian's own Python, as PyPI has it."""
    assert (RUNTIMES / ".done").exists(), "make install puts it there"
    return RUNTIMES


@pytest.fixture(scope="session")
def java() -> str:
    """The options of ``docker run`` for this machine's Java; its configuration stands in /etc."""
    mounts = [f"-v {path}:{path}:ro" for path in sorted(Path("/etc").glob("java-*-openjdk"))]
    program = shutil.which("java")
    assert program is not None
    home = Path(os.path.realpath(program)).parent
    return " ".join([*mounts, f"-e PATH={home}:/usr/bin"])
