"""Options of the commands that install files, and of those that remove them."""

from __future__ import annotations

import click

root_option = click.option(
    "--root",
    default="/",
    metavar="DIR",
    help="Work below this directory, as for a node's image; the scripts name no part of it.",
)

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done, with a diff of every file."
)
