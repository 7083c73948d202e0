"""Commands with so many options that their help lists them under headings."""

from __future__ import annotations

from typing import Any

import click

_LAST = "Options"


class GroupedOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class GroupedCommand(click.Command):
    """A command whose help lists options by heading, in the order in which headings first come; "Options" is last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "heading", _LAST), []).append(record)
        for heading, records in sorted(groups.items(), key=lambda group: group[0] == _LAST):
            with formatter.section(heading):
                formatter.write_dl(records)
