"""Errors of the shim, of Podman's hook and of other holders of leases."""


class ShimError(Exception):
    """The container cannot have its tickets, and therefore does not start.

    `code` is the stable name of the reason, `text` says it in words; ``str(error)`` is both, with
    the code in brackets. `is_agent_missing` says that the agent's directories are not there.
    """

    is_agent_missing = False

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} [{code}]")
        self.code = code
        self.text = text


class StartAbandonedError(ShimError):
    """Nobody waits for the container's start any more."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "start-abandoned",
            "container start: it was given up or the container deleted while this waited; "
            f"waited for {seconds:.0f} s",
        )


class NotYetError(ShimError):
    """What may be otherwise in a moment: no agent yet, a domain that does not answer.

    `retry_after` is how long, in seconds, the agent asks to wait.
    """

    def __init__(self, code: str, text: str, retry_after: float = 0.0) -> None:
        super().__init__(code, text)
        self.retry_after = retry_after
