"""Tables of ``credspec status``: with columns where the terminal has room, else line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

_INDENT: Final = "  "


class StatusTable:
    """Rows under headers; columns under `names` are never broken, so that they can be copied.

    Lines of a cell are one below the other where `boxes` draws lines around the cells, else joined
    by commas. A terminal that is too narrow gets each row as lines of header and text, without the
    columns that have no header (bars).
    """

    def __init__(self, *headers: str, names: tuple[str, ...], boxes: bool) -> None:
        self._headers, self._names, self._boxes = headers, names, boxes
        self._rows: list[tuple[RenderableType, ...]] = []

    def add_row(self, *cells: RenderableType) -> None:
        """Add a row: a cell, with rich's markup if it is a text, for each header."""
        self._rows.append(cells)

    def _table(self) -> Table:
        columns = (
            Column(header, overflow="fold", no_wrap=header in self._names, min_width=len(header))
            for header in self._headers
        )
        table = Table(*columns)
        if not self._boxes:
            table.box = None
        for row in self._rows:
            table.add_row(*(row if self._boxes else map(_one_line, row)))
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Yield what rich prints."""
        table = self._table()
        # With no limit, or rich would say that it fits.
        needed = Measurement.get(console, options.update(max_width=10_000), table).minimum
        if needed <= options.max_width:
            yield table
        else:
            yield from self._lines()

    def _lines(self) -> Iterator[Text]:
        width = max(map(len, self._headers))
        for first, *others in self._rows:
            yield Text.from_markup(f"[bold]{first}", overflow="fold")
            for header, cell in zip(self._headers[1:], others, strict=True):
                if header and cell:
                    text = f"{_INDENT}{header:<{width}}  {_one_line(cell)}"
                    yield Text.from_markup(text, overflow="fold")


def _one_line(cell: RenderableType) -> RenderableType:
    return cell.replace("\n", ", ") if isinstance(cell, str) else cell
