"""What joined this host to its domain, and who changes the machine password, as its files say.

Nothing is run and nothing secret is read: of Samba's secrets.tdb only whether it is there.
"""

from __future__ import annotations

import configparser
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from credspec.errors import Problem

_MAX_BYTES: Final = 1 << 20
_SSSD_DAYS: Final = "30"  # ad_maximum_machine_account_password_age(5 sssd-ad)
_WINBIND_SECONDS: Final = "604800"  # machine password timeout, smb.conf(5)
_BY_SCHEDULE: Final = re.compile(
    r"^[^#;\n]*\b(adcli\s+update|net\s+ads\s+changetrustpw|msktutil\s+[^\n]*--(?:auto-)?update)",
    re.MULTILINE,
)
_SCHEDULES: Final = (
    *(f"etc/cron.{when}/*" for when in ("d", "hourly", "daily", "weekly", "monthly")),
    *("etc/crontab", "var/spool/cron/crontabs/*", "etc/systemd/system/*.service"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostJoin:
    """How this host is joined.

    `tool` says what joined it, as far as files show. `rotators` are those who change the machine
    password, each with when and how. `problems` are what would leave the keytab stale.
    """

    tool: str
    rotators: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Look:
    """What is gathered; `root` is where the host's files are, `keytab` the one the agent reads."""

    root: Path
    keytab: Path
    rotators: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def look_at_join(keytab: Path, root: Path = Path("/")) -> HostJoin:
    """Return how the host is joined whose files are below `root`; `keytab` is its machine keytab.

    Files that cannot be read, as by other users than root, are named in `tool`.
    """
    look = _Look(root, keytab)
    by_realmd, sssd = _sssd(look)
    samba = _samba(look)
    _schedules(look)
    if sssd:
        with_samba = "joined-with-samba" in by_realmd
        tool = "net ads join" if with_samba or (samba and not by_realmd) else "adcli"
        if by_realmd:
            tool = f"realmd with {tool}"
        tool += ", used by SSSD"
    elif samba:
        tool = "net ads join, used by winbind" if _runs(root, "winbindd") else "net ads join"
    else:
        tool = "adcli or another tool that left nothing but the keytab"
    if look.unreadable:
        tool += f" ({', '.join(look.unreadable)} cannot be read by this user)"
    if len(look.rotators) > 1:
        look.problems.append(
            Problem(
                code="join-two-rotators",
                where="machine password",
                found=f"it is changed by {' and by '.join(look.rotators)}",
                expected="one of them",
                remedy="let one do it (ad_maximum_machine_account_password_age = 0 in sssd.conf, "
                "machine password timeout = 0 in smb.conf): each makes the other's key stale",
            )
        )
    return HostJoin(tool=tool, rotators=tuple(look.rotators), problems=tuple(look.problems))


def _sssd(look: _Look) -> tuple[str, bool]:
    """Return realmd's tags and whether SSSD has a domain of Active Directory."""
    text = ""
    directory = look.root / "etc/sssd"
    for path in (directory / "sssd.conf", *_matches(directory, "conf.d/*.conf")):
        text += _read(look, path) + "\n"
    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        return "", False
    domains = [
        parser[name]
        for name in parser.sections()
        if name.startswith("domain/") and (parser[name].get("id_provider") or "").strip() == "ad"
    ]
    for domain in domains:
        days = (domain.get("ad_maximum_machine_account_password_age") or _SSSD_DAYS).strip()
        if days == "0" or not _runs(look.root, "sssd") or not _has_program(look.root, "adcli"):
            continue
        look.rotators.append(f"SSSD (adcli update, when it is {days} days old)")
        own = Path((domain.get("krb5_keytab") or "/etc/krb5.keytab").strip())
        if own != look.keytab:
            look.problems.append(_other_keytab("SSSD", own, look.keytab, "krb5_keytab, sssd.conf"))
    return " ".join((domain.get("realmd_tags") or "") for domain in domains), bool(domains)


def _samba(look: _Look) -> bool:
    """Return whether Samba is a member of a domain; winbind then changes the password."""
    options = _smb_options(_read(look, look.root / "etc/samba/smb.conf"))
    secrets = look.root / "var/lib/samba/private/secrets.tdb"
    try:
        is_member = options.get("security", "").lower() == "ads" and secrets.exists()
    except PermissionError:
        is_member = options.get("security", "").lower() == "ads"
    seconds = options.get("machinepasswordtimeout", _WINBIND_SECONDS)
    if is_member and seconds != "0" and _runs(look.root, "winbindd"):
        look.rotators.append(f"winbind (every {seconds} s)")
        method = options.get("kerberosmethod", "").lower()
        if "keytab" not in method and not options.get("syncmachinepasswordtokeytab"):
            look.problems.append(
                Problem(
                    code="join-keytab-not-updated",
                    where="smb.conf",
                    found="winbind changes the machine password and leaves the keytab as it is",
                    expected="kerberos method = secrets and keytab (with Samba 4.21 and newer: "
                    "sync machine password to keytab)",
                    remedy="set that, and renew the keytab now: net ads keytab create",
                )
            )
        own = options.get("dedicatedkeytabfile", "").removeprefix("FILE:")
        if own and "dedicated" in method and Path(own) != look.keytab:
            look.problems.append(
                _other_keytab("winbind", Path(own), look.keytab, "dedicated keytab file, smb.conf")
            )
    return is_member


def _smb_options(text: str) -> dict[str, str]:
    """Return what [global] of an smb.conf says; names without spaces, as Samba compares them."""
    options: dict[str, str] = {}
    section = ""
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[]").strip().lower()
        elif section == "global" and line[:1] not in {"", "#", ";"} and "=" in line:
            name, _, value = line.partition("=")
            options["".join(name.split()).lower()] = value.strip()
    return options


def _schedules(look: _Look) -> None:
    """Find timers and cron's tables that change the password."""
    for pattern in _SCHEDULES:
        for path in _matches(look.root, pattern):
            if found := _BY_SCHEDULE.search(_read(look, path, quietly=True)):
                command = " ".join(found[1].split()[:3])
                look.rotators.append(f"{command} in /{path.relative_to(look.root)}")


def _other_keytab(who: str, own: Path, keytab: Path, option: str) -> Problem:
    return Problem(
        code="join-keytab-other",
        where="machine keytab",
        found=f"{who} updates {own}, and the agent reads {keytab}",
        expected="one keytab",
        remedy=f"name the same one: keytab under [host_identity] in the configuration, or {option}",
    )


def _read(look: _Look, path: Path, *, quietly: bool = False) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except PermissionError:
        if not quietly:
            look.unreadable.append(f"/{path.relative_to(look.root)}")
    except OSError:
        pass
    return ""


def _matches(directory: Path, pattern: str) -> Iterator[Path]:
    try:
        yield from sorted(directory.glob(pattern))
    except OSError:
        return


def _has_program(root: Path, name: str) -> bool:
    path = ":".join(str(root / each) for each in ("usr/sbin", "usr/bin", "sbin", "bin"))
    return shutil.which(name, path=path) is not None


def _runs(root: Path, name: str) -> bool:
    """Return whether a program runs, by the names of processes, which every user may read."""
    for path in _matches(root, "proc/[0-9]*/comm"):
        try:
            if path.read_text("utf-8", "replace").strip() == name:
                return True
        except OSError:
            continue
    return False
