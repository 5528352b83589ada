"""`canhazgpu agent install`: install systemd's units of the agent, and start it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.installation import dry_run_option, root_option
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.cli.version import VERSION
from canhazgpu.errors import AgentError, ConfigError

if TYPE_CHECKING:
    from canhazgpu.agent.systemd import Systemd
    from canhazgpu.schedulers.slurm.site.install import InstallStep
    from canhazgpu.templates.agent_units import UnitSettings

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Installation:
    """The files, the warnings, and what the running agent said in the end (None: not asked)."""

    settings: UnitSettings
    steps: tuple[InstallStep, ...]
    warnings: tuple[str, ...]
    next_steps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    agent: Mapping[str, Any] | None = None


@click.command(epilog=exit_codes(AgentError))
@click.option(
    "--node",
    "-n",
    metavar="NAME",
    help="Install the agent of this node, where several slurmd run on this host; a unit of its own."
    "  [default: the host's own]",
)
@root_option
@dry_run_option
@json_option
@click.pass_obj
def install(app: App, node: str | None, root: str, dry_run: bool, as_json: bool) -> None:
    """Install the agent as a service of systemd, start it, and wait until it answers.

    Runs as root, on each node or into an image. It writes the agent's unit, an entry of tmpfiles.d
    for the node's records, and, with an embedded store, a unit for that. An agent of another
    release becomes this one, as the same process; it is started anew where the unit's other lines
    have changed, after the requests that are under way. Where systemd does not
    run, it says what to do instead. Only files that canhazgpu has installed are ever replaced.

    \b
    Examples:
      canhazgpu agent install --dry-run
      canhazgpu --config /etc/canhazgpu/config.toml agent install
      canhazgpu agent install --node gpu01
      canhazgpu agent install --root /srv/images/gpu-node --json
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.agent.systemd import Systemd  # noqa: PLC0415 - not for the help
    from canhazgpu.node.users import require_root  # noqa: PLC0415
    from canhazgpu.schedulers.slurm.site.install import step_diff  # noqa: PLC0415

    base = Path(root).absolute()
    if not dry_run:
        require_root("install the node's agent")
    systemd = Systemd(base, app.environ)
    plan = _plan(app, base, node)
    _refuse_another_agent(plan.settings, systemd)
    diffs = {step.target: step_diff(step) for step in plan.steps} if dry_run else {}
    done = plan if dry_run else _carry_out(plan, systemd, base)
    if as_json:
        click.echo(json.dumps(_to_dict(done, diffs, dry_run=dry_run), indent=2))
        return
    for line in _lines(done, diffs, dry_run=dry_run):
        print_sanitized(line)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)


def _plan(app: App, root: Path, node: str | None) -> Installation:
    from canhazgpu.agent.unit_files import plan_unit_files  # noqa: PLC0415 - not for the help
    from canhazgpu.cli.hook_site.config_warnings import config_warnings  # noqa: PLC0415
    from canhazgpu.cli.hook_site.unit_settings import unit_settings  # noqa: PLC0415

    if node is not None and not NODE_NAME.fullmatch(node):
        raise ConfigError(f"--node {node!r} is no name of a node")
    effective = app.effective_config()
    settings, warnings = unit_settings(effective, root, node)
    return Installation(
        settings,
        plan_unit_files(settings, root),
        (*config_warnings(effective), *warnings),
    )


def _refuse_another_agent(settings: UnitSettings, systemd: Systemd) -> None:
    """Raise `ConfigError` where an agent runs that this unit did not start: only one can."""
    if not systemd.starts_units or systemd.is_active(settings.unit):
        return
    if found := _running_agent(settings):
        raise ConfigError(
            f"an agent of this node runs already as process {found['pid']}, and not by"
            f" {settings.unit}: end it, or take it out of its supervisor, and try again"
        )


def _running_agent(settings: UnitSettings) -> dict[str, Any] | None:
    from canhazgpu.agent.client import call  # noqa: PLC0415 - not for the help
    from canhazgpu.agent.wire.interface import STATUS  # noqa: PLC0415

    try:
        return call(Path(settings.state_dir), STATUS)
    except AgentError:
        return None


def _carry_out(plan: Installation, systemd: Systemd, root: Path) -> Installation:
    from canhazgpu.agent.unit_files import (  # noqa: PLC0415
        changes_only_program,
        remove_unit_files,
        superseded_files,
    )
    from canhazgpu.schedulers.slurm.site.install import apply_steps  # noqa: PLC0415

    only_program = changes_only_program(plan.steps[0])
    apply_steps(plan.steps)
    settings = plan.settings
    superseded = superseded_files(settings, root)
    systemd.remove([one.target.name for one in superseded])
    remove_unit_files(superseded)
    units = [one for one in (settings.store_unit, settings.unit) if one]
    systemd.reload()
    systemd.enable(units)
    starts = systemd.starts_units
    found = _started(plan, systemd, root, only_program=only_program) if starts else None
    return Installation(
        settings,
        plan.steps,
        plan.warnings,
        tuple(_next_steps(settings, systemd, units)),
        tuple(shlex.join(one) for one in systemd.commands),
        found,
    )


def _started(
    plan: Installation, systemd: Systemd, root: Path, *, only_program: bool
) -> dict[str, Any]:
    """Start what was installed; return the agent's own word. Raises `AgentError`.

    `only_program` is whether no other line of the agent's unit has changed.
    """
    from canhazgpu.agent.client import call  # noqa: PLC0415 - not for the help
    from canhazgpu.agent.wire.interface import STATUS  # noqa: PLC0415
    from canhazgpu.schedulers.slurm.site.installed_files import under_root  # noqa: PLC0415

    settings = plan.settings
    systemd.make_directories(under_root(root, Path(settings.tmpfiles_path)))
    if settings.store_unit:
        systemd.start(settings.store_unit)
    before = _running_agent(settings)
    is_other = before is not None and before["release"] != VERSION
    is_due = plan.steps[0].action != "unchanged" or is_other or before is None
    # systemd says that the unit is started, or reloaded, when the agent has told that it serves.
    if is_due and only_program and before is not None and "executions" in before:
        systemd.reload_unit(settings.unit)
    else:
        systemd.start(settings.unit, anew=is_due)
    return call(Path(settings.state_dir), STATUS)


def _next_steps(settings: UnitSettings, systemd: Systemd, units: list[str]) -> Iterator[str]:
    if systemd.starts_units:
        return
    if not systemd.enables_units:
        command = ["systemctl", *systemd.image_option, "enable", *units]
        yield f"to have it started at boot by systemd: {shlex.join(command)}"
    if not systemd.is_image:
        words = [sys.executable, "-I", "-m", "canhazgpu.cli.main", "agent", "run"]
        words += ["--node", settings.node] if settings.node else []
        config = [f"CANHAZGPU_CONFIG={settings.config_file}"] if settings.config_file else []
        yield (
            "systemd does not run here, so nothing was started; have your supervisor run, as root:"
            f" {shlex.join(['env', *config, *words] if config else words)}"
        )


def _lines(done: Installation, diffs: Mapping[Path, str], *, dry_run: bool) -> Iterator[str]:
    for step in done.steps:
        to_be = "to be " if dry_run and step.action != "unchanged" else ""
        yield f"{to_be}{step.action} {step.target}"
    for text in filter(None, diffs.values()):
        yield ""
        yield from text.splitlines()
    yield from done.next_steps
    if done.agent:
        yield (
            f"the agent of {done.agent['node']} answers: release {done.agent['release']}, PID"
            f" {done.agent['pid']}"
        )


def _to_dict(done: Installation, diffs: Mapping[Path, str], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "unit": done.settings.unit,
        "files": [
            {
                "path": str(step.file.path),
                "target": str(step.target),
                "action": step.action,
                "diff": diffs.get(step.target),
            }
            for step in done.steps
        ],
        "commands": list(done.commands),
        "agent": {key: done.agent[key] for key in ("node", "release", "pid")}
        if done.agent
        else None,
        "next_steps": list(done.next_steps),
        "warnings": list(done.warnings),
    }
