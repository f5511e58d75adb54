"""What the README says to type on one's own host, typed on a bare one, line by line.

The Debian packages that it installs are there already, so that nothing is downloaded. Of the
lines, only the names of domain and image are replaced; PowerShell's are done by Samba's tool.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from credspec.lab.client_image import write_client_image
from credspec.lab.domain import Lab
from support.machine.package_machine import CHECKOUT, ENVIRONMENT, PackageMachine
from support.machine.pseudo_terminal import Terminal, terminal

HOST, PATIENCE = "quick1", 600.0
SECTION = re.compile(r"^## Quick start$(.*?)^## ", re.MULTILINE | re.DOTALL)


def blocks() -> list[list[str]]:
    """Return the commands of the README's section, block by block."""
    section = SECTION.search((CHECKOUT / "README.md").read_text())
    assert section is not None
    found = re.findall(r"(?:^ {4}.+\n)+", section[1], re.MULTILINE)
    return [[line.strip() for line in each.splitlines()] for each in found]


def enter(shell: Terminal, line: str, answers: dict[str, str]) -> str:
    """Type a line; answer what is asked; return what was printed once it has succeeded."""
    shell.shown = b""
    shell.type(f"{line}\n")
    asked = dict(answers)
    while True:
        shell.wait_for_any([*asked, "READY 0 $ ", "READY 1 $ "], PATIENCE)
        shown = shell.shown.decode(errors="replace")
        question = next((each for each in asked if each in shown), None)
        if question is None:
            assert "READY 0 $ " in shown, shown
            return shown
        shell.type(f"{asked.pop(question)}\n")


def test_the_readme_s_own_lines_on_a_bare_host(
    boot: Callable[..., PackageMachine], lab: Lab, packages: dict[str, Path]
) -> None:
    host = boot(joined=False)
    host.run("hostname", HOST)
    shutil.copy(packages["credspec"], host.root / "root")
    with (host.root / "srv/image.tar").open("wb") as file:
        write_client_image(file)

    first, in_the_domain, then = blocks()
    assert in_the_domain[1].startswith("Set-ADServiceAccount WebApp01 ")
    assert "contoso.com" in first[-1]
    assert "IMAGE" in then[-1]
    answers = {"[Y/n]": "y", "assword for Administrator": lab.admin_password}
    enter_machine = host.booted.command("env", "-i", *ENVIRONMENT, "PS1=READY $? $ ")
    with terminal([*enter_machine, "sh", "-i"], columns=200) as shell:
        shell.wait_for("READY 0 $ ", PATIENCE)
        enter(shell, "cd /root", {})
        for line in first:
            enter(shell, line.replace("contoso.com", lab.dns_domain), answers)
        lab.samba_tool(
            *("service-account", "group-msa-membership", "add"),
            *("--name=WebApp01", f"--principal={HOST}$"),
        )
        host.run("systemctl", "start", "docker.service")  # as on a booted host
        host.run("docker", "import", "/srv/image.tar", "kerberos-client")
        try:
            for line in then:
                shown = enter(shell, line.replace("IMAGE", "kerberos-client"), {})
        finally:
            lab.samba_tool("computer", "delete", HOST)
    assert f"Default principal: WebApp01$@{lab.realm}" in shown


def test_the_start_page_has_the_same_lines() -> None:
    page = (CHECKOUT / "docs/index.md").read_text()
    for block in blocks():
        for line in block:
            assert f"    {line}\n" in page
