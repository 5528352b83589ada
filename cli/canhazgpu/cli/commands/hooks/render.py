"""`canhazgpu hooks render`: write all scripts and example files into a directory."""

from __future__ import annotations

from pathlib import Path

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.hook_site.script_settings import hook_settings, installed_version
from canhazgpu.cli.options.hooks import slurm_dir_option
from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.site.checksum import with_checksum
from canhazgpu.templates.slurm_files import DEFAULT_GPUS, fragment_texts, hook_texts
from canhazgpu.untrusted_directory import untrusted_directory


@click.command(epilog=exit_codes())
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

    Beside the scripts these are lines for slurm.conf and an example of gres.conf. For a
    site that has scripts of its own, 'hooks install --root' fits them in. Users for Redis
    are printed by 'canhazgpu store acl'.

    \b
    Example:
      canhazgpu hooks render --output ./hooks
    """  # noqa: D301 - click reads the character: keep these lines
    settings = hook_settings(app.effective_config(), Path("/"), slurm_dir, gpus)
    version = installed_version()
    scripts = {name: with_checksum(text, version) for name, text in hook_texts(settings).items()}
    files = {**scripts, **fragment_texts(settings)}
    for name, text in files.items():
        path = Path(output) / name
        _write_file(path, text, 0o755 if text.startswith("#!") else 0o644)
        click.echo(path)


def _write_file(path: Path, text: str, mode: int) -> None:
    try:
        with untrusted_directory(path.parent, makes=True) as directory:
            directory.replace(path.name, text.encode(), mode)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc
