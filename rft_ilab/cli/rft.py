"""The group ``ilab rft``; its commands are the entry points of ``instructlab.command.rft``."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

import click
from click_didyoumean import DYMGroup
from instructlab.clickext import LazyEntryPointGroup

from rft_ilab.host import hook


class RftGroup(LazyEntryPointGroup):
    """ilab's lazy group, lazier still, and with a line on whether ilab's own commands could be extended.

    ilab's class reads the entry points of all installed packages when it is created (15 ms and more); ours is
    created for every ``ilab --help``, which needs its short help only.
    """

    def __init__(self, *args: Any, ep_group: str, **kwargs: Any) -> None:
        DYMGroup.__init__(self, *args, **kwargs)
        self.ep_group = ep_group

    @functools.cached_property
    def eps(self) -> metadata.EntryPoints:
        return metadata.entry_points(group=self.ep_group)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text(f"`ilab model train --rft` and `ilab data generate --verify`: {hook.status()}.")
        super().format_epilog(ctx, formatter)


@click.group(cls=RftGroup, ep_group="instructlab.command.rft")
@click.pass_context
def rft(ctx: click.Context) -> None:
    """Reinforcement fine-tuning with a regression gate.

    If this is your first time running ilab, it's best to start with `ilab config init` to create the environment.
    """
    ctx.obj = ctx.parent.obj  # type: ignore[union-attr]
    ctx.obj.ensure_config(ctx)
    ctx.default_map = ctx.parent.default_map  # type: ignore[union-attr]
