"""An option that says where to listen."""

from __future__ import annotations

import click


class Address(click.ParamType[tuple[str, int]]):
    """``ADDRESS:PORT``, all addresses without one; an IPv6 address may be in brackets."""

    name = "address:port"

    def convert(
        self,
        value: str | tuple[str, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, int]:
        """Return address and port."""
        if isinstance(value, tuple):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004
            self.fail(f"{value!r} is not ADDRESS:PORT", param, ctx)
        return host.strip("[]"), int(port)
