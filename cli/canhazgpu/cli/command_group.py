"""The groups of commands: which command is meant, also where it was mistyped."""

from __future__ import annotations

import click


class CommandGroup(click.Group):
    """A group that suggests commands for one that it does not have."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group.resolve_command`."""
        name = args[0]
        is_option = name.startswith("-")
        if not (is_option or ctx.resilient_parsing) and self.get_command(ctx, name) is None:
            from canhazgpu.cli.suggestions import unknown_command_text  # noqa: PLC0415 - after a mistake

            raise click.UsageError(unknown_command_text(ctx, name), ctx)
        return super().resolve_command(ctx, args)
