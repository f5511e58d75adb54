"""Step on the host's join: what made it, who changes the machine password, who follows that."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from credspec.agent.host_identity import MachineKeytab
from credspec.agent.keytab_principal import read_keytab
from credspec.agent.systemd_setup import AGENT_UNIT
from credspec.doctor.host_join import look_at_join
from credspec.doctor.step import Finding, Step
from credspec.errors import Problem

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination

_SECONDS: Final = 5


def _join(examination: Examination) -> Finding:
    identity = examination.identity
    if not isinstance(identity, MachineKeytab):
        return Finding("not checked: this logon is not the machine keytab's")
    join = look_at_join(identity.keytab)
    changed = _changed(identity)
    text = f"joined by {join.tool}; the machine password is changed by "
    text += ", ".join(join.rotators) or "no program here (adcli update, or net ads changetrustpw)"
    if changed is not None:
        text += f"; last {changed:%Y-%m-%d %H:%M} UTC"
    follows, problems = _agents_keytab(identity.keytab)
    return Finding(f"{text}; {follows}", join.problems + problems)


def _changed(identity: MachineKeytab) -> datetime | None:
    """Return when the newest entry of the principal was written, None if it is not recorded."""
    entries = read_keytab(identity.keytab)
    newest = max((each.timestamp for each in entries if each.name == identity.name), default=0)
    return datetime.fromtimestamp(newest, UTC) if newest else None


def _agents_keytab(keytab: Path) -> tuple[str, tuple[Problem, ...]]:
    """Return whether the agent's service sees the keytab that is here, also once it is replaced."""
    process = _main_process(AGENT_UNIT)
    follows = "the agent reads the keytab at each logon, also one that took its place"
    if process is None:
        return follows, ()
    try:
        theirs = Path(f"/proc/{process}/root", *keytab.resolve().parts[1:]).stat()
    except PermissionError:
        return follows, ()  # only root may look
    except OSError:
        theirs = None
    with suppress(OSError):
        ours = keytab.stat()
        if theirs is None or (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            seen = "none" if theirs is None else "another file"
            problem = Problem(
                code="join-keytab-not-followed",
                where=f"process {process} of {AGENT_UNIT}",
                found=f"it sees {seen} at {keytab}",
                expected="the keytab that is there now",
                remedy="restart it; show it the keytab's directory and not only the file "
                "(BindReadOnlyPaths= and container volumes keep a file that was replaced)",
            )
            return "the agent does not see it", (problem,)
    return follows, ()


def _main_process(unit: str) -> int | None:
    """Return the number of a service's process, None without one."""
    command = ["systemctl", "show", "--value", "--property=MainPID", unit]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(shown) if shown.isdecimal() and shown != "0" else None


JOIN_STEP: Final = Step(
    name="join",
    title="What joined the host, and who changes its password",
    run=_join,
    needs=("host-identity",),
)
