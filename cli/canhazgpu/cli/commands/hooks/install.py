"""`canhazgpu hooks install`: install the scripts, and print the lines slurm.conf lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.hook_site.agent_state import install_hint
from canhazgpu.cli.hook_site.config_warnings import config_warnings
from canhazgpu.cli.hook_site.install_warnings import install_warnings
from canhazgpu.cli.hook_site.script_settings import hook_files, hook_settings
from canhazgpu.cli.hook_site.store_login import shared_login
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.hooks import chain_option, slurm_conf_option, slurm_dir_option
from canhazgpu.cli.options.installation import dry_run_option, root_option
from canhazgpu.config import EffectiveConfig
from canhazgpu.config.conflict_chain import swap_error
from canhazgpu.errors import ConfigError
from canhazgpu.node.identity import node_name
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf, read_settings
from canhazgpu.schedulers.slurm.site.collect import find_slurm_conf
from canhazgpu.schedulers.slurm.site.conf_text import conf_text
from canhazgpu.schedulers.slurm.site.health_lines import health_lines
from canhazgpu.schedulers.slurm.site.hook_paths import (
    refuse_copied_hooks,
    with_absolute_hooks,
)
from canhazgpu.schedulers.slurm.site.install import (
    InstallStep,
    apply_steps,
    find_script_states,
    plan_install,
    read_chained_scripts,
    step_diff,
)
from canhazgpu.schedulers.slurm.site.installed_files import under_root
from canhazgpu.schedulers.slurm.site.layout import chain_script_paths, plan_layout
from canhazgpu.schedulers.slurm.site.multi_node import allows_multi_node_jobs
from canhazgpu.schedulers.slurm.site.required_lines import ConfLine, hook_limit_s, needed_lines


@dataclass(frozen=True, slots=True)
class Installation:
    """The steps of an installation, the lines for slurm.conf, warnings, and a hint or ""."""

    conf: Path
    steps: tuple[InstallStep, ...]
    lines: tuple[ConfLine, ...]
    warnings: tuple[str, ...]
    hint: str


@click.command(epilog=exit_codes())
@root_option
@slurm_dir_option
@slurm_conf_option
@chain_option
@dry_run_option
@json_option
@click.pass_obj
def install(
    app: App,
    *,
    root: str,
    slurm_dir: str,
    slurm_conf: str | None,
    chains: Mapping[str, str],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Install the hooks and the health check, and say what slurm.conf lacks.

    Runs as root, on each node or into an image. slurm.conf is read and never changed. A
    site's own scripts stay: canhazgpu's go beside them where Prolog and Epilog are patterns,
    and run them as well where Prolog, Epilog or TaskProlog is a single script. Only files
    that canhazgpu has installed are ever replaced. The scripts name this Python and the
    configuration file in force.

    \b
    Examples:
      canhazgpu hooks install --dry-run
      canhazgpu --config /etc/canhazgpu/config.toml hooks install
      canhazgpu hooks install --root /srv/images/gpu-node --json
    """  # noqa: D301 - click reads the character: keep these lines
    plan = _plan_installation(app, Path(root).absolute(), slurm_dir, slurm_conf, chains)
    diffs = {step.target: step_diff(step) for step in plan.steps} if dry_run else {}
    if not dry_run:
        apply_steps(plan.steps)
    if as_json:
        click.echo(json.dumps(_installation_to_dict(plan, diffs, dry_run=dry_run), indent=2))
    else:
        _print_text(plan, diffs, dry_run=dry_run)


def _plan_installation(
    app: App, root: Path, slurm_dir: str, slurm_conf: str | None, chains: Mapping[str, str]
) -> Installation:
    """Return what is to be installed below `root`; raises `ConfigError` where it cannot work."""
    effective = app.effective_config()
    conf = under_root(root, Path(find_slurm_conf(slurm_conf, app.environ, slurm_dir, root)))
    if slurm_conf and not may_exist(conf):
        raise ConfigError(f"cannot read {conf}: No such file or directory")
    slurm = effective.config.slurm
    constrained = read_node_conf(conf, "", "", root).constrains_devices
    if fault := swap_error(slurm.chains(), constrained=constrained):
        raise ConfigError(fault)
    node_path = f"/{conf.relative_to(root)}"
    site = with_absolute_hooks(read_settings(conf, root), node_path)
    refuse_copied_hooks(site, chains)
    chained = read_chained_scripts(chain_script_paths(site, slurm_dir), root)
    layout = plan_layout(site, slurm_dir, chains, chained)
    settings = hook_settings(
        effective, root, slurm_dir, conf=node_path if may_exist(conf) else None
    )
    files = hook_files(settings, layout)
    steps = plan_install(files, find_script_states(files, root), root)
    multi_node_jobs = allows_multi_node_jobs(conf)
    slurm_picks = constrained or slurm.assignment == "slurm"
    return Installation(
        conf,
        steps,
        lines=(
            *needed_lines(site, layout, hook_limit_s(slurm), multi_node_jobs=multi_node_jobs),
            *health_lines(site, layout.health_check),
        ),
        warnings=(
            *config_warnings(effective),
            *_store_warnings(effective, app, root),
            *install_warnings(site, layout, steps, root, slurm_picks=slurm_picks),
        ),
        hint=install_hint(root),
    )


def _store_warnings(effective: EffectiveConfig, app: App, root: Path) -> Iterator[str]:
    # An image is no node's.
    node = node_name(effective.config.node, app.environ) if root == Path("/") else ""
    if found := shared_login(effective.config.store, node):
        yield f"{found}: 'canhazgpu store acl' prints a user for each node, and a reader"


def _print_text(installation: Installation, diffs: Mapping[Path, str], *, dry_run: bool) -> None:
    for step in installation.steps:
        to_be = "to be " if dry_run and step.action != "unchanged" else ""
        click.echo(f"{to_be}{step.action} {step.target}")
    for text in filter(None, diffs.values()):
        click.echo(f"\n{text}", nl=False)
    if installation.hint:
        click.echo(f"\n{installation.hint}")
    if not installation.lines:
        click.echo(f"\n{installation.conf} has every line that the hooks need.")
    else:
        click.echo("\nFor slurm.conf, on the controller and on every node:\n")
        click.echo(conf_text(installation.lines))
        click.echo("Then run 'scontrol reconfigure', and restart slurmd where PrologFlags changed.")
    for warning in installation.warnings:
        click.echo(f"warning: {warning}", err=True)


def _installation_to_dict(
    installation: Installation, diffs: Mapping[Path, str], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "files": [
            {
                "path": str(step.file.path),
                "target": str(step.target),
                "action": step.action,
                "diff": diffs.get(step.target),
            }
            for step in installation.steps
        ],
        "slurm_conf_file": str(installation.conf) if may_exist(installation.conf) else None,
        "slurm_conf": conf_text(installation.lines),
        "slurm_conf_lines": [
            {
                "key": line.key,
                "value": line.value,
                "instead_of": line.instead_of or None,
                "reason": line.reason,
            }
            for line in installation.lines
        ],
        "warnings": list(installation.warnings),
        "hint": installation.hint or None,
    }
