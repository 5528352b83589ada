"""`canhazgpu hooks`: the scripts that Slurm runs, and the lines that make it run them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.hook_settings import hook_settings
from canhazgpu.cli.hook_settings import warnings as hook_warnings
from canhazgpu.cli.options import json_option
from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.install import HookFile, Step, carry_out, look, plan, replace_file
from canhazgpu.templates.slurm_files import (
    DEFAULT_GPUS,
    DEFAULT_SLURM_DIR,
    fragment_texts,
    hook_texts,
)

slurm_dir_option = click.option(
    "--slurm-dir",
    default=DEFAULT_SLURM_DIR,
    show_default=True,
    metavar="DIR",
    callback=lambda _context, _parameter, value: _absolute("--slurm-dir", value),
    help="The directory of slurm.conf on the nodes.",
)


def _absolute(name: str, value: str) -> str:
    if not value.startswith("/") or any(ord(letter) < 32 for letter in value):
        raise click.BadParameter(f"{name} {value!r} is not an absolute path")
    return value.rstrip("/")


@click.group()
def hooks() -> None:
    """Render or install the scripts that Slurm runs for each job.

    \b
    Examples:
      canhazgpu hooks render --output ./hooks
      canhazgpu hooks install --dry-run
    """  # noqa: D301 - click reads the character: keep these lines


@hooks.command()
@click.option("--output", required=True, metavar="DIR", help="Write the files here.")
@click.option(
    "--gpus",
    type=click.IntRange(1, 256),
    default=DEFAULT_GPUS,
    show_default=True,
    help="GPUs of a node in the example of gres.conf.",
)
@slurm_dir_option
@click.pass_obj
def render(app: App, output: str, gpus: int, slurm_dir: str) -> None:
    """Write all files into a directory, to look at or to hand to a configuration manager.

    Beside the scripts these are lines for slurm.conf, an example of gres.conf, and users
    for Redis (an ACL file, with a digest of the password that store.url holds).

    \b
    Example:
      canhazgpu hooks render --output ./hooks
    """  # noqa: D301 - click reads the character: keep these lines
    settings = hook_settings(app.effective(), Path("/"), slurm_dir, gpus)
    files = {**hook_texts(settings), **fragment_texts(settings)}
    for name, text in files.items():
        _write(Path(output) / name, text, 0o755 if text.startswith("#!") else 0o644)
        click.echo(Path(output) / name)


def _write(path: Path, text: str, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text, mode)
    except OSError as exc:
        raise ConfigError(f"cannot write {exc.filename}: {exc.strerror}") from exc


@hooks.command()
@click.option(
    "--root",
    default="/",
    metavar="DIR",
    help="Install below this directory, as for a node's image; the scripts name no part of it.",
)
@slurm_dir_option
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
@json_option
@click.pass_obj
def install(app: App, root: str, slurm_dir: str, dry_run: bool, as_json: bool) -> None:
    """Install the prolog, the epilog and the task prolog, and say what slurm.conf needs.

    Runs as root, on each node or into an image. Only files that canhazgpu has installed
    are ever replaced. The scripts name this Python and the configuration file in force.

    \b
    Examples:
      canhazgpu hooks install --dry-run
      canhazgpu --config /etc/canhazgpu/config.toml hooks install
      canhazgpu hooks install --root /srv/images/gpu-node --json
    """  # noqa: D301 - click reads the character: keep these lines
    effective = app.effective()
    base = Path(root).absolute()
    settings = hook_settings(effective, base, slurm_dir, DEFAULT_GPUS)
    files = [HookFile(Path(slurm_dir) / name, text) for name, text in hook_texts(settings).items()]
    steps = plan(files, look(files, base), base)
    if not dry_run:
        carry_out(steps)
    lines = fragment_texts(settings)["slurm.conf.canhazgpu"]
    warnings = list(hook_warnings(effective))
    if as_json:
        click.echo(_json(steps, lines, warnings, dry_run))
    else:
        _tell(steps, lines, warnings, dry_run)


def _tell(steps: tuple[Step, ...], lines: str, warnings: list[str], dry_run: bool) -> None:
    for step in steps:
        action = (
            step.action if step.action == "unchanged" or not dry_run else f"to be {step.action}"
        )
        click.echo(f"{action} {step.target}")
    click.echo(f"\nFor slurm.conf, on the controller and on every node:\n\n{lines}")
    click.echo("Then run 'scontrol reconfigure', and restart slurmd where PrologFlags changed.")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _json(steps: tuple[Step, ...], lines: str, warnings: list[str], dry_run: bool) -> str:
    files = [
        {"path": str(step.file.path), "target": str(step.target), "action": step.action}
        for step in steps
    ]
    return json.dumps(
        {"dry_run": dry_run, "files": files, "slurm_conf": lines, "warnings": warnings}, indent=2
    )
