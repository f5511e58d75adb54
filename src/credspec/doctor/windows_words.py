"""What Windows users know by number or by command, and the step that looks at the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class WindowsWord:
    """A number or command of Windows, its symbol, the steps it belongs to, and what it means."""

    word: str
    symbol: str
    steps: tuple[str, ...]
    meaning: str


WINDOWS_WORDS: Final = (
    WindowsWord(
        "5", "ERROR_ACCESS_DENIED", ("permission",), "The host may not read the managed password."
    ),
    WindowsWord(
        "1311",
        "ERROR_NO_LOGON_SERVERS",
        ("dns", "dns-tcp", "dc-ports"),
        "No domain controller was found or accepts a connection.",
    ),
    WindowsWord(
        "1326", "ERROR_LOGON_FAILURE", ("host-ticket",), "The host's own logon was refused."
    ),
    WindowsWord(
        "1355", "ERROR_NO_SUCH_DOMAIN", ("dns", "dns-tcp"), "DNS does not lead to the domain."
    ),
    WindowsWord(
        "1398", "ERROR_TIME_SKEW", ("clock",), "The clocks of host and domain controller differ."
    ),
    WindowsWord(
        "1722",
        "RPC_S_SERVER_UNAVAILABLE",
        ("runtime", "gateway", "agent"),
        "The container was started without a credential spec, or nothing on the host took it.",
    ),
    WindowsWord(
        "1787",
        "ERROR_NO_TRUST_SAM_ACCOUNT",
        ("spec", "domain", "account"),
        "The spec names another domain, or the account is not there or no gMSA.",
    ),
    WindowsWord(
        "sc_verify",
        "nltest /sc_verify:DOMAIN",
        ("dc-ports", "host-ticket", "ldap"),
        "The host's own logon to a domain controller works.",
    ),
    WindowsWord(
        "klist get krbtgt",
        "klist get krbtgt",
        ("ticket",),
        "The account gets a ticket-granting ticket.",
    ),
    WindowsWord(
        "Test-ADServiceAccount",
        "Test-ADServiceAccount ACCOUNT",
        ("account", "permission", "password"),
        "This host may use the account.",
    ),
)


def find_windows_word(text: str) -> WindowsWord | None:
    """Return the entry for a number (decimal or ``0x...``), a symbol or a command; None without."""
    wanted = text.strip().lower()
    if wanted.startswith("0x"):
        try:
            wanted = str(int(wanted, 16))
        except ValueError:
            return None
    for entry in WINDOWS_WORDS:
        if wanted in {entry.word.lower(), entry.symbol.lower()}:
            return entry
    return None
