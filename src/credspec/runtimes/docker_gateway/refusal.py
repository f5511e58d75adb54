"""The gateway's own answers: what it refuses, and why, in the form of dockerd's errors."""

from __future__ import annotations

import json


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not forwarded, or whose answer cannot be had."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def pack(self, *, to_head: bool = False) -> bytes:
        """Return it as HTTP; without the body in an answer to HEAD."""
        body = json.dumps({"message": self.message}).encode() + b"\n"
        head = (
            f"HTTP/1.1 {self.status} {self.reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if to_head else body)


def no_memory() -> Refusal:
    """Return the refusal of a body for which there is no memory in time."""
    return Refusal(
        503,
        "Service Unavailable",
        "credspec: too many large requests at a time; try again [bodies-too-large]",
    )
