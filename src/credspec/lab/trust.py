"""A second domain that a lab's domain trusts and that trusts it: a two-way forest trust."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, UsageError
from credspec.lab.accounts import account_commands
from credspec.lab.domain import Lab, all_labs, run_tool
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.provisioning import HOST_ACCOUNT, Progress, up
from credspec.lab.retry import retry
from credspec.lab.samba_commands import run_commands

TRUSTED_ACCOUNT: Final = "OtherApp01"
"""The other domain's only gMSA; the first lab's host may read its password across the trust."""

_SID: Final = re.compile(r"^objectSid: (\S+)$", re.MULTILINE)


def trusted_name(name: str) -> str:
    """Return how `credspec lab up --domains 2` names the other lab."""
    return f"{name}-trusted"


def up_trusted(
    lab: Lab,
    *,
    name: str,
    realm: str = "OTHER.TEST",
    netbios: str | None = None,
    progress: Progress = lambda _: None,
    use_cache: bool = True,
) -> Lab:
    """Bring up the lab `name`, whose domain and that of `lab` trust each other, and return it.

    Its domain holds `TRUSTED_ACCOUNT` and no host. The domain controller of `lab` restarts: from
    now on it asks the other one for names that it does not know, so a lab has one such partner. A
    partner that is up already is returned as it is. If it fails or is interrupted, nothing is left.

    Raises:
        UsageError: `lab-name-taken` by a lab without this trust; and those of `up`.
        CredspecError: of the step that failed.
    """
    for existing in all_labs():
        if existing.name == name and existing.is_running():
            if lab.network.is_connected(existing.network):
                return existing
            raise UsageError.of(
                "lab-name-taken",
                f"there is a lab {name!r} without this trust",
                where="lab",
                remedy=f"take another name, or take it down with `credspec lab down --name {name}`",
            )

    def populate(other: Lab) -> None:
        progress("Making the gMSA")
        _make_account(lab, other)

    configured = lab.smb_conf.read_text("utf-8")
    other = up(
        name,
        realm=realm,
        netbios=netbios,
        progress=progress,
        populate=populate,
        use_cache=use_cache,
    )
    try:
        progress(f"Restarting the domain controller of {lab.realm}")
        lab.network.connect(other.network)
        _forward_names(lab, configured, other.dc_address)
        # One server knows both domains: were each to ask the other, they would do so forever.
        (other.directory / "resolv.conf").write_bytes((lab.directory / "resolv.conf").read_bytes())
        for one, another in ((lab, other), (other, lab)):
            _set_realm(one, another, known=True)
        progress(f"Making the trust between {lab.realm} and {other.realm}")
        _make_trust(lab, other, progress)
    except BaseException:
        lab.network.disconnect(other.network)
        other.down()
        _set_realm(lab, other, known=False)
        _configure(lab, configured)
        raise
    return other


def down_trusted(lab: Lab, other: Lab) -> None:
    """Take down what `up_trusted` brought up, the trust and what `lab` has of it included.

    Raises:
        CredspecError: `lab-timeout`.
    """
    with _tool_of_trusts(lab, other) as trust, contextlib.suppress(CredspecError):
        trust("delete", "--delete-location=local")
    lab.network.disconnect(other.network)
    other.down()
    _set_realm(lab, other, known=False)
    _configure(lab, "\n".join(_without_forwarder(lab.smb_conf.read_text("utf-8"))) + "\n")


def _make_account(lab: Lab, other: Lab) -> None:
    shown = lab.samba_tool("computer", "show", HOST_ACCOUNT, "--attributes=objectSid")
    host_sid = _SID.findall(shown)[0]
    commands = account_commands(other.dns_domain, TRUSTED_ACCOUNT, readers=(host_sid,))
    run_commands(other, [*commands, ("spn", "add", f"ldap/{other.dc_host}", "DC1$")])


def _set_realm(lab: Lab, other: Lab, *, known: bool) -> None:
    """Let Kerberos know a trusted realm in a lab, or know it no longer."""
    text = lab.krb5_conf.read_text("utf-8").replace(other.realm_stanzas, "")
    lab.krb5_conf.write_text(text + (other.realm_stanzas if known else ""), "utf-8")


def _without_forwarder(smb_conf: str) -> list[str]:
    return [line for line in smb_conf.splitlines() if "dns forwarder" not in line]


def _forward_names(lab: Lab, configured: str, address: str) -> None:
    """Let a domain's DNS server ask another one for what it does not know."""
    lines = _without_forwarder(configured)
    lines.insert(lines.index("[global]") + 1, f"\tdns forwarder = {address}")
    _configure(lab, "\n".join(lines) + "\n")


def _configure(lab: Lab, smb_conf: str) -> None:
    lab.smb_conf.write_text(smb_conf, "utf-8")
    # The server does not look again while it runs.
    lab.stop_dc()
    # It would look for minutes for a domain where a former one of its name was.
    (lab.directory / "dc" / "gencache.tdb").unlink(missing_ok=True)
    lab.start_dc()


def _make_trust(lab: Lab, other: Lab, progress: Progress) -> None:
    """Make the trust; a controller that has only just started may refuse it at first.

    Raises:
        CredspecError: `lab-samba-tool`, of the last attempt.
    """
    with _tool_of_trusts(lab, other) as trust, _tool_of_trusts(other, lab) as trust_of_other:

        def delete() -> None:
            # A failed attempt may have left its part on one side only.
            for tool in (trust, trust_of_other):
                with contextlib.suppress(CredspecError):
                    tool("delete", "--delete-location=local")

        def create() -> None:
            trust("create", "--type=forest", "--direction=both", "--create-location=both")

        def again() -> None:
            progress("Trying again")
            delete()

        delete()  # what is left of a partner of that name that has gone
        retry(create, between=again)


@contextlib.contextmanager
def _tool_of_trusts(lab: Lab, other: Lab) -> Iterator[Callable[..., None]]:
    """Yield ``samba-tool domain trust``; the passwords are in files for as long as it is used."""
    plan = Plan(netns=lab.network.namespace, binds=lab.etc_files())
    with tempfile.TemporaryDirectory(dir=other.directory) as secrets:
        options = ["-s", str(lab.smb_conf), f"--local-dc-ipaddress={lab.dc_address}"]
        for one, prefix in ((lab, "--local-dc-"), (other, "--")):
            path = Path(secrets, one.name)
            path.write_text(
                "username = Administrator\n"
                f"password = {one.admin_password}\ndomain = {one.netbios}\n",
                "utf-8",
            )
            options += [f"{prefix}authentication-file={path}", f"{prefix}use-kerberos=off"]

        def trust(verb: str, *arguments: str) -> None:
            tool = ["samba-tool", "domain", "trust", verb, other.dns_domain]
            run_tool(command_in(plan, [*tool, *arguments, *options]))

        yield trust
