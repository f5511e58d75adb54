"""DNS questions to the system's name servers, with deadlines, beside libc's resolver.

libc asks one name server after the other, 5 s each by default, and blocks the thread meanwhile.
Here the next one is asked a quarter of a second after the one before, and the first useful answer
counts, so that a silent name server costs only that.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Final, NamedTuple, Protocol

from credspec.errors import NoAnswerError, UnreachableError

_DNS_SECONDS: Final = 5.0
_ATTEMPT_SECONDS: Final = 1.0
# How long a name server may take before the next one is asked as well.
_HEAD_START_SECONDS: Final = 0.25
# How long one that stands before another may take until "no such name" of the other counts.
_PRECEDENCE_SECONDS: Final = 1.0
# How long the second kind of address may take once there are addresses of the first.
_OTHER_KIND_SECONDS: Final = 0.5


def load_dnspython() -> None:
    """Load dnspython without what it would look for other packages with.

    They are for DNS by HTTPS, QUIC and the like, and for names beyond ASCII, of which nothing is
    used here; `importlib.metadata` alone brings 2.5 MiB of archives and mail with it.
    """
    import dns

    if "dns._features" not in sys.modules:
        features = ModuleType("dns._features")
        vars(features)["have"] = lambda _feature: False
        sys.modules["dns._features"] = vars(dns)["_features"] = features
    import dns.resolver


class SrvRecord(NamedTuple):
    """One SRV answer: `target` is a host name without trailing dot."""

    priority: int
    weight: int
    port: int
    target: str


class Resolver(Protocol):
    """What the locator needs of DNS; both methods raise `UnreachableError`."""

    def srv(self, name: str) -> Sequence[SrvRecord]:
        """Return the SRV records of a name; empty if there are none."""

    def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of a host; empty if there are none."""


class DnsResolver:
    """DNS by the name servers of the system's resolver configuration, read with each question."""

    def __init__(
        self, seconds: float = _DNS_SECONDS, *, tcp: bool = False, nameserver: str | None = None
    ) -> None:
        """Ask by UDP first, or only by `tcp`; the system's name servers, or `nameserver`.

        A question takes at most so many `seconds`.
        """
        self._seconds = seconds
        self._tcp = tcp
        self._nameserver = nameserver
        self._answered: str | None = None

    def nameservers(self) -> Sequence[str]:
        """Return the addresses of the name servers that are asked; empty if there are none."""
        load_dnspython()
        import dns.resolver

        if self._nameserver is not None:
            return [self._nameserver]
        try:
            return [str(server) for server in dns.resolver.Resolver().nameservers]
        except dns.resolver.NoResolverConfiguration:
            return []

    def srv(self, name: str) -> Sequence[SrvRecord]:
        """Return the SRV records of `name`.

        Raises:
            NoAnswerError: `dns-unreachable` if no name server answers in time.
        """
        return [
            SrvRecord(r.priority, r.weight, r.port, r.target.to_text(omit_final_dot=True))
            for r in self._ask(name, "SRV")
        ]

    def addresses(self, host: str) -> Sequence[str]:
        """Return the A and AAAA records of `host`, asked for at the same time; raises as `srv`.

        If only one of the two is answered in time, its addresses are enough.
        """
        kinds = ("A", "AAAA")
        outcomes: queue.SimpleQueue[tuple[str, list[str] | UnreachableError]] = queue.SimpleQueue()

        def ask(kind: str) -> None:
            try:
                outcomes.put((kind, [record.address for record in self._ask(host, kind)]))
            except UnreachableError as error:
                outcomes.put((kind, error))

        for kind in kinds:
            _start(lambda kind=kind: ask(kind))  # type: ignore[misc]
        found: dict[str, list[str]] = {}
        failure: UnreachableError | None = None
        timeout: float | None = None
        for _ in kinds:
            try:
                kind, outcome = outcomes.get(timeout=timeout)
            except queue.Empty:
                break
            if isinstance(outcome, UnreachableError):
                failure = outcome
                continue
            found[kind] = outcome
            timeout = _OTHER_KIND_SECONDS if outcome else None
        if failure is not None and not any(found.values()):
            raise failure
        return [address for kind in kinds for address in found.get(kind, ())]

    def _ask(self, name: str, kind: str) -> Iterable[_AnyRecord]:
        # The one that answered last goes first: a silent one costs its head start only once.
        servers = sorted(self.nameservers(), key=lambda server: server != self._answered)
        if not servers:
            raise _unreachable(name, "there is no name server")
        race = _Race([self._question(server, name, kind) for server in servers], self._seconds)
        outcome = race.run()
        if outcome is None:
            raise _unreachable(name, f"no name server answers ({', '.join(servers)})")
        if isinstance(outcome.found, str):
            raise _unreachable(name, f"{servers[outcome.number]}: {outcome.found}")
        self._answered = servers[outcome.number]
        return outcome.found

    def _question(
        self, server: str, name: str, kind: str
    ) -> Callable[[], Sequence[_AnyRecord] | str]:
        """Return what asks one name server: its records, or in words why there is no answer."""

        def ask() -> Sequence[_AnyRecord] | str:
            load_dnspython()
            import dns.exception
            import dns.resolver

            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers = [server]
            resolver.timeout = _ATTEMPT_SECONDS
            try:
                # The trailing dot keeps search domains out of it.
                answer = resolver.resolve(f"{name}.", kind, tcp=self._tcp, lifetime=self._seconds)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                return ()
            except (dns.exception.DNSException, OSError) as error:
                return type(error).__name__
            return list(answer)

        return ask


class _Outcome(NamedTuple):
    """What the name server with this number answered: records, or why there are none, in words."""

    number: int
    found: Sequence[_AnyRecord] | str


class _Race:
    """Asks name servers one after the other, each a little later, until one answer counts."""

    def __init__(
        self, questions: Sequence[Callable[[], Sequence[_AnyRecord] | str]], seconds: float
    ) -> None:
        self._questions = questions
        self._end = time.monotonic() + seconds
        self._answers: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._started: list[float] = []
        self._outcomes: dict[int, _Outcome] = {}

    def run(self) -> _Outcome | None:
        """Return the outcome that counts; None if nobody answers in time."""
        self._start_next()
        while len(self._outcomes) < len(self._questions):
            now = time.monotonic()
            if now >= self._end:
                break
            if self._next_start() <= now:
                self._start_next()
            until = min(self._end, self._next_start(), self._precedence_ends())
            try:
                outcome = self._answers.get(timeout=max(0.001, until - now))
            except queue.Empty:
                pass
            else:
                self._outcomes[outcome.number] = outcome
                if outcome.found and not isinstance(outcome.found, str):
                    return outcome
            counting = self._counting()
            if counting is not None:
                return counting
        answered = sorted(
            self._outcomes.values(), key=lambda o: (isinstance(o.found, str), o.number)
        )
        return answered[0] if answered else None

    def _next_start(self) -> float:
        if len(self._started) == len(self._questions):
            return self._end
        # A server that failed has no head start.
        waiting = len(self._started) > len(self._outcomes)
        return self._started[-1] + _HEAD_START_SECONDS if waiting else 0.0

    def _start_next(self) -> None:
        number = len(self._started)
        self._started.append(time.monotonic())
        ask = self._questions[number]
        _start(lambda: self._answers.put(_Outcome(number, ask())))

    def _counting(self) -> _Outcome | None:
        """Return "no such name" of a server once those before it failed or were silent for long.

        One that stands first may know names that others do not.
        """
        for number, started in enumerate(self._started):
            outcome = self._outcomes.get(number)
            if outcome is not None and not isinstance(outcome.found, str):
                return outcome
            if outcome is None and time.monotonic() - started < _PRECEDENCE_SECONDS:
                return None
        return None

    def _precedence_ends(self) -> float:
        waited_for = (s for n, s in enumerate(self._started) if n not in self._outcomes)
        later = [s + _PRECEDENCE_SECONDS for s in waited_for]
        return min((end for end in later if end > time.monotonic()), default=self._end)


def _start(call: Callable[[], None]) -> None:
    # A daemon: a question that nobody waits for any more must not hold up the end of a command.
    threading.Thread(target=call, daemon=True).start()


def _unreachable(name: str, found: str) -> NoAnswerError:
    return NoAnswerError.of(
        "dns-unreachable",
        f"{name}: {found}",
        where="DNS",
        remedy="check /etc/resolv.conf: it must name the domain's DNS servers, or servers that "
        "forward to them",
    )


class _AnyRecord(Protocol):
    priority: int
    weight: int
    port: int
    address: str

    @property
    def target(self) -> _AnyName: ...


class _AnyName(Protocol):
    def to_text(self, *, omit_final_dot: bool) -> str: ...
