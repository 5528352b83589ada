"""Options that several commands of `canhazgpu hooks` have."""

from __future__ import annotations

from collections.abc import Sequence

import click

from canhazgpu.schedulers.slurm.site.layout import JOB_SCRIPT_KEYS
from canhazgpu.templates.slurm_files import DEFAULT_SLURM_DIR


def parse_absolute_path(name: str, value: str) -> str:
    """Return the absolute path without a slash at its end; raises `click.BadParameter`."""
    if not value.startswith("/") or any(ord(letter) < 32 for letter in value):
        raise click.BadParameter(f"{name} {value!r} is not an absolute path")
    return value.rstrip("/")


def parse_chains(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Turn ``KEY=PATH`` options into a mapping; an empty path means no script."""
    keys = {key.lower(): key for key in JOB_SCRIPT_KEYS}
    chains = {}
    for value in values:
        name, separator, path = value.partition("=")
        key = keys.get(name.strip().lower())
        if key is None or not separator:
            raise click.BadParameter(
                f"{value!r} is not KEY=PATH, with KEY one of {', '.join(JOB_SCRIPT_KEYS)}"
            )
        chains[key] = parse_absolute_path(f"--chain {key}", path) if path else ""
    return chains


slurm_dir_option = click.option(
    "--slurm-dir",
    default=DEFAULT_SLURM_DIR,
    show_default=True,
    metavar="DIR",
    callback=lambda _context, _parameter, value: parse_absolute_path("--slurm-dir", value),
    help="The directory of the scripts on the nodes, and of slurm.conf.",
)

slurm_conf_option = click.option(
    "--slurm-conf",
    metavar="FILE",
    callback=lambda _context, _parameter, value: (
        None if value is None else parse_absolute_path("--slurm-conf", value)
    ),
    help="slurm.conf as the nodes know it.  [default: $SLURM_CONF, else the one in --slurm-dir,"
    " else /run/slurm/conf/slurm.conf]",
)

chain_option = click.option(
    "--chain",
    "chains",
    metavar="KEY=PATH",
    multiple=True,
    callback=parse_chains,
    help="The site's own Prolog, Epilog or TaskProlog, to be run as well; with no PATH there is"
    " none.  [default: what slurm.conf says]",
)
