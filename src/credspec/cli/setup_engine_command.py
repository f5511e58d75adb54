"""An engine's command of ``credspec setup``, made of what its set-up declares."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from credspec.cli.help_text import examples

if TYPE_CHECKING:
    from credspec.setup.engine import EngineSetup, SetupOption


class _AbsolutePath(click.Path):
    """A path that programs in other directories use, and therefore absolute."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(os.fsdecode(super().convert(value, param, ctx))).absolute()


def engine_command(engine: type[EngineSetup], callback: Callable[..., None]) -> click.Command:
    """Return the command of an engine; `callback` gets its options as keywords, see `fields_of`."""
    return click.Command(
        engine.name,
        callback=callback,
        params=[
            click.Option(["--undo"], is_flag=True, help="Undo what setup did."),
            click.Option(
                ["--dry-run"], is_flag=True, help="Say what would change, and change nothing."
            ),
            *map(_click_option, engine.options),
            click.Option(
                ["--wait"],
                type=click.FloatRange(0, 3600),
                metavar="SECONDS",
                help="How long a start waits for agent and domain.  "
                "[wait_seconds of the configuration]",
            ),
            click.Option(
                ["--output"], type=click.Choice(["text", "json"]), default="text", show_default=True
            ),
        ],
        help=inspect.cleandoc(engine.help),
        epilog=examples(f"credspec setup {engine.name} --dry-run"),
    )


def fields_of(engine: type[EngineSetup], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an engine's set-up that its options set; a later option counts."""
    fields: dict[str, Any] = {}
    for option in engine.options:
        value = given[_parameter(option)]
        if option.kind is not bool and value is not None:
            fields[option.field] = value
        elif option.kind is bool and value:
            fields[option.field] = option.flag_value
    return fields


def _parameter(option: SetupOption) -> str:
    return option.flag.removeprefix("--").replace("-", "_")


def _click_option(option: SetupOption) -> click.Option:
    names = [option.flag, _parameter(option)]
    if option.kind is bool:
        return click.Option(names, is_flag=True, help=option.help)
    return click.Option(
        names,
        type=_AbsolutePath(path_type=Path) if option.kind is Path else None,
        default=option.default,
        show_default=option.default is not None,
        help=option.help,
    )
