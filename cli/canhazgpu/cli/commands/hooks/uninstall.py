"""`canhazgpu hooks uninstall`: remove the installed scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.hook_site.agent_state import installed_units
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.hooks import slurm_conf_option, slurm_dir_option
from canhazgpu.cli.options.installation import dry_run_option, root_option
from canhazgpu.config.schema import Config
from canhazgpu.errors import ConfigError
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.node_conf import read_settings
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.site.collect import (
    QUERY_TIMEOUT_S,
    find_slurm_conf,
    read_running_settings,
)
from canhazgpu.schedulers.slurm.site.health_lines import foreign_health_check
from canhazgpu.schedulers.slurm.site.hook_paths import with_absolute_hooks
from canhazgpu.schedulers.slurm.site.install import diff_text
from canhazgpu.schedulers.slurm.site.installed_files import under_root
from canhazgpu.schedulers.slurm.site.programs import calls_our_health_check, matched_programs
from canhazgpu.schedulers.slurm.site.uninstall import (
    DanglingReference,
    Removal,
    find_dangling_references,
    find_installed,
    remove_scripts,
    script_directories,
)

EXIT_REFUSED = 2

LEDGER_NOTICE = """\
The ledger is left as it is. Jobs release their GPUs in their epilogs, so let those with GPUs end
first; what is still reserved then goes with the ledger's keys:

  redis-cli -u STORE_URL --scan --pattern '{prefix}:*' | xargs -r redis-cli -u STORE_URL unlink
"""


@dataclass(frozen=True, slots=True)
class Uninstallation:
    """What is removed, what stays, and what still refers to scripts that would be removed.

    `foreign` are files that canhazgpu did not install; they stay. `health_check_caller` is the
    site's own HealthCheckProgram if it calls ours, else "".
    """

    conf: Path
    removals: Sequence[Removal]
    foreign: Sequence[Path]
    named_in_conf: Sequence[DanglingReference]
    named_by_controller: Sequence[DanglingReference]
    health_check_caller: str
    dry_run: bool
    store_prefix: str
    agent_units: Sequence[str]

    @property
    def refused(self) -> bool:
        """Tell whether Slurm would still run a script that is to be removed."""
        return bool(self.named_in_conf or self.named_by_controller or self.health_check_caller)


@click.command(
    epilog=exit_codes(
        others={EXIT_REFUSED: "refused: Slurm still runs what would be gone; or wrong options"}
    )
)
@root_option
@slurm_dir_option
@slurm_conf_option
@dry_run_option
@json_option
@click.pass_context
def uninstall(
    context: click.Context,
    *,
    root: str,
    slurm_dir: str,
    slurm_conf: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove the scripts that 'hooks install' has installed, and nothing else.

    Refused while slurm.conf or the running controller names a script that would be gone:
    jobs would fail, and nodes be drained. It says which lines to change to what, so that
    the site's own scripts run as before. The ledger is left alone.

    \b
    Examples:
      canhazgpu hooks uninstall --dry-run
      canhazgpu hooks uninstall
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = context.obj
    base = Path(root).absolute()
    conf = find_slurm_conf(slurm_conf, app.environ, slurm_dir, base)
    plan = _plan_uninstallation(app, base, conf, slurm_dir, dry_run)
    if not dry_run and not plan.refused:
        remove_scripts(plan.removals, slurm_dir, base)
    click.echo(_json(plan) if as_json else "\n".join(_text_lines(plan)))
    if plan.refused:
        click.echo("nothing was removed: Slurm still runs what would be gone", err=True)
        context.exit(EXIT_REFUSED)


def _plan_uninstallation(
    app: App, root: Path, conf: str, slurm_dir: str, dry_run: bool
) -> Uninstallation:
    conf_path = under_root(root, Path(conf))
    settings = with_absolute_hooks(read_settings(conf_path, root), conf)
    removals, foreign = find_installed(script_directories(settings, slurm_dir), root)
    named_by_controller: tuple[DanglingReference, ...] = ()
    if root == Path("/") and may_exist(conf_path) and removals:
        commands = SlurmCommands(
            _config(app).slurm.bin_dir, QUERY_TIMEOUT_S, {names.SLURM_CONF: conf}
        )
        if running := read_running_settings(commands):
            controller_settings = with_absolute_hooks(running, conf)
            named_by_controller = find_dangling_references(
                controller_settings, matched_programs(controller_settings), removals
            )
    named_in_conf = find_dangling_references(settings, matched_programs(settings, root), removals)
    health_check_caller = foreign_health_check(settings)
    calls = bool(health_check_caller and removals) and calls_our_health_check(
        health_check_caller, root
    )
    return Uninstallation(
        conf_path,
        removals,
        foreign,
        named_in_conf,
        named_by_controller,
        health_check_caller if calls else "",
        dry_run,
        _config(app).store.prefix,
        installed_units(root),
    )


def _config(app: App) -> Config:
    try:
        return app.effective_config().config
    except ConfigError:
        return Config()  # scripts can be removed even if the configuration is broken


def _text_lines(plan: Uninstallation) -> Iterator[str]:
    for one in plan.removals:
        yield f"{'to be removed' if plan.dry_run or plan.refused else 'removed'} {one.target}"
    if not plan.removals:
        yield "nothing of canhazgpu's is installed"
    for path in plan.foreign:
        yield f"left {path}, which canhazgpu did not install"
    if plan.dry_run:
        yield ""
        for one in plan.removals:
            yield diff_text(one.target, one.text, None).rstrip("\n")
    yield ""
    yield from _conf_instructions(plan)
    if plan.agent_units:
        yield ""
        yield f"The agent is left as it is ({', '.join(plan.agent_units)}):"
        yield "'canhazgpu agent uninstall' ends it and removes its units."
    yield ""
    yield LEDGER_NOTICE.format(prefix=plan.store_prefix).rstrip("\n")


def _conf_instructions(plan: Uninstallation) -> Iterator[str]:
    if plan.health_check_caller:
        yield f"First take the call of canhazgpu's health check out of {plan.health_check_caller},"
        yield "on every node."
    if plan.named_in_conf:
        yield f"First change in {plan.conf}, on the controller and on every node:"
        yield from (f"  {one.change}" for one in plan.named_in_conf)
        yield "then run 'scontrol reconfigure', and this command again."
    elif plan.named_by_controller:
        yield "The controller still runs with these lines; run 'scontrol reconfigure':"
        yield from (f"  {one.change}" for one in plan.named_by_controller)
    elif plan.health_check_caller:
        yield "Then run this command again."
    elif not may_exist(plan.conf):
        yield f"{plan.conf} is not there, so it was not asked whether it names the scripts."
    else:
        yield f"{plan.conf} names none of these. PrologFlags, the timeouts and"
        yield "nohold_on_prolog_fail may stay; they need nothing of canhazgpu."


def _json(plan: Uninstallation) -> str:
    return json.dumps(
        {
            "dry_run": plan.dry_run,
            "refused": plan.refused,
            "agent_units": list(plan.agent_units),
            "files": [
                {
                    "path": one.path,
                    "target": str(one.target),
                    "diff": diff_text(one.target, one.text, None) if plan.dry_run else None,
                }
                for one in plan.removals
            ],
            "left": [str(path) for path in plan.foreign],
            "slurm_conf_lines": [
                {"key": one.key, "value": one.site, "instead_of": one.value}
                for one in plan.named_in_conf
            ],
            "reconfigure": bool(plan.named_by_controller),
            "health_check_called_by": plan.health_check_caller or None,
        },
        indent=2,
    )
