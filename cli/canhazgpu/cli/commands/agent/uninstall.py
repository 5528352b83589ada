"""`canhazgpu agent uninstall`: end the agent, and remove systemd's units of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.installation import dry_run_option, root_option
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.errors import AgentError

if TYPE_CHECKING:
    from canhazgpu.agent.unit_files import UnitFile

LEFT = (
    "The node's records and an embedded store's data are left as they are; hooks do their work"
    " themselves."
)


@click.command(epilog=exit_codes(AgentError))
@root_option
@dry_run_option
@json_option
@click.pass_obj
def uninstall(app: App, root: str, dry_run: bool, as_json: bool) -> None:
    """Stop the agents that 'agent install' has installed, and remove their units.

    Runs as root. Requests that are under way are finished first. Hooks then do their work in
    their own processes; nothing has to be changed for that. An embedded store is stopped too: the
    next hook or command that needs it starts it. Jobs, runs and all records stay.

    \b
    Examples:
      canhazgpu agent uninstall --dry-run
      canhazgpu agent uninstall
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.agent.systemd import Systemd  # noqa: PLC0415 - not for the help
    from canhazgpu.agent.unit_files import installed_unit_files, remove_unit_files  # noqa: PLC0415
    from canhazgpu.node.users import require_root  # noqa: PLC0415

    base = Path(root).absolute()
    found = installed_unit_files(base)
    ours = [one for one in found if one.text is not None]
    foreign = [one.target for one in found if one.text is None]
    systemd = Systemd(base, app.environ)
    if not dry_run:
        require_root("remove the node's agent")
        systemd.remove([one.target.name for one in ours if one.is_unit])
        remove_unit_files(ours)
        if ours:
            systemd.reload()
    if as_json:
        commands = [shlex.join(one) for one in systemd.commands]
        click.echo(json.dumps(_to_dict(ours, foreign, commands, dry_run=dry_run), indent=2))
        return
    for line in _lines(ours, foreign, dry_run=dry_run):
        print_sanitized(line)


def _lines(ours: Sequence[UnitFile], foreign: Sequence[Path], *, dry_run: bool) -> Iterator[str]:
    for one in ours:
        yield f"{'to be removed' if dry_run else 'removed'} {one.target}"
    if not ours:
        yield "no unit of canhazgpu's agent is installed"
    for path in foreign:
        yield f"left {path}, which canhazgpu did not install"
    yield LEFT


def _to_dict(
    ours: Sequence[UnitFile], foreign: Sequence[Path], commands: Sequence[str], *, dry_run: bool
) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "files": [str(one.target) for one in ours],
        "left": [str(path) for path in foreign],
        "commands": list(commands),
    }
