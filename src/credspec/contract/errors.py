"""Errors of the shim, of Podman's hook and of other holders of leases."""


class ShimError(Exception):
    """The container cannot have its tickets, and therefore does not start; the text says why."""


class NotYetError(ShimError):
    """What may be otherwise in a moment: no agent yet, a domain that does not answer.

    `retry_after` is how long, in seconds, whoever said so asks to be left alone.
    """

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after
