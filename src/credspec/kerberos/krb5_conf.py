"""The krb5.conf texts that credspec writes: one for containers, one for its own process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from credspec.errors import CredspecError
from credspec.file_replacement import replace_file

_FIND_KDC = "dns_lookup_kdc = true"
_LIBDEFAULTS = (
    # Names are what the user typed: reverse DNS must not change which service is asked for.
    "rdns = false",
    _FIND_KDC,
    # Tickets with a PAC rarely fit into a datagram.
    "udp_preference_limit = 1",
)


_TYPED_NAME_ONLY = "dns_canonicalize_hostname = false"
# The asterisk, MIT's mark of a final value, hides it from gokrb5, which reads yes and no only.
_TYPED_NAME_FIRST = "dns_canonicalize_hostname* = fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPaths:
    """Where programs without our environment find the tickets; None is left to their defaults.

    `replay_caches` is a directory for the replay caches of those who accept logons.
    """

    ccache: str
    keytab: str | None = None
    replay_caches: str | None = None


def container_krb5_conf(
    realm: str,
    kdcs: Mapping[str, Iterable[str]],
    *,
    paths: DefaultPaths | None = None,
    name_fallback: bool = False,
) -> str:
    """Return the complete krb5.conf for a container.

    `realm` is the Kerberos realm of its default account. `kdcs` are the addresses of domain
    controllers by realm, in the order to try them; with none, clients find them by DNS. With
    `name_fallback`, a service whose typed name has no SPN is asked for by the name that DNS has for
    it; krb5 before 1.18 cannot read such a file.
    """
    # As Windows clients do: without it nothing can be delegated with what programs get by kinit.
    lines = [f"default_realm = {realm}", "forwardable = true"]
    if paths is not None:
        lines.append(f"default_ccache_name = {paths.ccache}")
        if paths.keytab is not None:
            lines.append(f"default_keytab_name = {paths.keytab}")
        if paths.replay_caches is not None:
            lines.append(f"default_rcache_name = file2:{paths.replay_caches}/%{{euid}}.rcache2")
    names = _TYPED_NAME_FIRST if name_fallback else _TYPED_NAME_ONLY
    return _text([*lines, *_LIBDEFAULTS, names], kdcs)


def services_krb5_conf(realm: str, *, paths: DefaultPaths | None = None) -> str:
    """Return the complete krb5.conf for a container that has tickets of services only.

    It names no KDC and lets nobody look for one: there is nothing to ask for without a TGT. Names
    of hosts are what was typed, since a cache is searched for one name.
    """
    return _without_dns(realm, {realm: ()}, _TYPED_NAME_ONLY, paths)


def broker_krb5_conf(
    realm: str,
    realms: Iterable[str],
    port: int | None,
    *,
    paths: DefaultPaths | None = None,
    name_fallback: bool = False,
) -> str:
    """Return the complete krb5.conf for a container whose KDC is the agent.

    It answers for all `realms` at a port of the container's loopback, None as long as it does not.
    Nobody looks for another. `realm` and `name_fallback` are as with `container_krb5_conf`.
    """
    names = _TYPED_NAME_FIRST if name_fallback else _TYPED_NAME_ONLY
    kdcs = () if port is None else (f"127.0.0.1:{port}",)
    return _without_dns(realm, dict.fromkeys(dict.fromkeys((realm, *realms)), kdcs), names, paths)


def _without_dns(
    realm: str, kdcs: Mapping[str, Iterable[str]], names: str, paths: DefaultPaths | None
) -> str:
    lines = [f"default_realm = {realm}"]
    if paths is not None:
        lines.append(f"default_ccache_name = {paths.ccache}")
    others = (line for line in _LIBDEFAULTS if line != _FIND_KDC)
    return _text([*lines, *others, "dns_lookup_kdc = false", names], kdcs)


def agent_krb5_conf(realms: Mapping[str, Iterable[str]]) -> str:
    """Return the krb5.conf for the agent's own process: the realms it uses, with their KDCs."""
    # A clock that is off must fail, not be papered over by the library.
    return _text([*_LIBDEFAULTS, _TYPED_NAME_ONLY, "kdc_timesync = 0"], realms)


class AgentKrb5Conf:
    """The krb5.conf file of the agent's process, rewritten as domain controllers are located.

    Making and changing it raises CredspecError `krb5-conf-unwritable`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._realms: dict[str, tuple[str, ...]] = {}
        self._write({})

    def set_kdcs(self, realm: str, addresses: Iterable[str]) -> None:
        """Let libkrb5 ask these addresses for tickets of `realm`, in this order."""
        wanted = tuple(addresses)
        with self._lock:
            if self._realms.get(realm) == wanted:
                return
            self._write(self._realms | {realm: wanted})
            self._realms[realm] = wanted

    def _write(self, realms: Mapping[str, Iterable[str]]) -> None:
        try:
            replace_file(self._path, agent_krb5_conf(realms).encode(), mode=0o600)
        except OSError as error:
            raise CredspecError.of(
                "krb5-conf-unwritable",
                error.strerror or str(error),
                where=str(self._path),
                remedy="free space there, or make it writable (df, mount)",
            ) from None


def _text(libdefaults: Iterable[str], realms: Mapping[str, Iterable[str]]) -> str:
    stanzas: list[str] = []
    names: list[str] = []
    for realm, given in realms.items():
        addresses = tuple(given)
        # Each is also called the primary one: else libkrb5 looks for that in DNS with each request.
        kdcs = [
            f" {kind} = {_bracketed(address)}"
            for kind in ("kdc", "master_kdc")
            for address in addresses
        ]
        if kdcs:
            stanzas += [f"{realm} = {{", *kdcs, "}"]
        names += [f".{realm.lower()} = {realm}", f"{realm.lower()} = {realm}"]
    sections = {"libdefaults": libdefaults, "realms": stanzas, "domain_realm": names}
    return "\n".join(
        f"[{name}]\n" + "".join(f" {line}\n" for line in lines)
        for name, lines in sections.items()
        if lines
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if address.count(":") > 1 else address
