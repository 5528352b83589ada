"""`canhazgpu hooks check`: what is wrong on this node, and the line that mends it."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.hook_settings import (
    hook_files,
    hook_settings,
    unseen_by_hooks,
    weak_places,
)
from canhazgpu.cli.hooks_options import slurm_conf_option, slurm_dir_option
from canhazgpu.cli.options import json_option
from canhazgpu.cli.terminal_text import printable
from canhazgpu.config import DEFAULT_CONFIG_FILE, Config, Effective
from canhazgpu.errors import CanhazgpuError, ConfigError
from canhazgpu.ledger.store_url import EMBEDDED, parse_store_url
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.schedulers.slurm.as_hook import look_as_hook
from canhazgpu.schedulers.slurm.checks import Finding, run_checks, worst
from canhazgpu.schedulers.slurm.install import HookFile, look, read_chained, why_different
from canhazgpu.schedulers.slurm.layout import HEALTH_KEY, State, chain_paths, fit
from canhazgpu.schedulers.slurm.settings import Settings
from canhazgpu.schedulers.slurm.site import AsHook, ConfigSide, OurSide, Site
from canhazgpu.schedulers.slurm.survey import (
    find_conf,
    look_at_state_dir,
    nvml_libraries,
    program,
    says_health_check,
    slurm_side,
)
from canhazgpu.schedulers.slurm.trust import changeable_by_others, closed_to_users
from canhazgpu.templates.slurm_files import HookSettings

ROOT = Path("/")
ERRORS = 2
WARNINGS = 1
COLOURS = {"error": "red", "warning": "yellow", "ok": "green"}


@click.command()
@slurm_dir_option
@slurm_conf_option
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings.")
@json_option
@click.pass_context
def check(
    context: click.Context, *, slurm_dir: str, slurm_conf: str | None, strict: bool, as_json: bool
) -> None:
    """Look for everything on this node that would keep the hooks from working.

    Runs as root, on a node with GPUs, and changes nothing. What is read of GPUs and store
    is read as a hook reads it, without the shell's environment. Exits with 2 where there
    are errors, else with 0; with --strict, with 1 where there are warnings.

    \b
    Examples:
      canhazgpu hooks check
      canhazgpu hooks check --json --strict
      canhazgpu --config /etc/canhazgpu/hooks.toml hooks check
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = context.obj
    findings = run_checks(look_at_site(app, slurm_dir, slurm_conf))
    click.echo(json.dumps(_as_json(findings), indent=2) if as_json else _text(findings))
    grave = worst(findings)
    if grave == "error":
        context.exit(ERRORS)
    if grave == "warning" and strict:
        context.exit(WARNINGS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What hooks would be told; the default configuration where the real one has a fault."""

    effective: Effective
    settings: HookSettings | None
    fault: str | None


def look_at_site(app: App, slurm_dir: str, slurm_conf: str | None) -> Site:
    """Gather everything that the checks look at."""
    conf = find_conf(slurm_conf, app.environ, slurm_dir, ROOT)
    wanted = _wanted(app, slurm_dir, conf)
    config = wanted.effective.config
    node = node_name(config.node, app.environ)
    slurm = slurm_side(conf, node, socket.gethostname().split(".")[0], config.slurm)
    settings = wanted.settings
    ours = _our_side(slurm.settings, settings, slurm_dir, _command(app, slurm_dir, slurm_conf))
    return Site(
        node=node,
        as_root=os.geteuid() == 0,
        slurm=slurm,
        ours=ours,
        config=_config_side(wanted, ours),
        state_dir=look_at_state_dir(state_dir(config.node, node)),
        as_hook=look_as_hook(settings.python, settings.config_file, config, conf, node)
        if settings
        else AsHook(),
        nvml_libraries=nvml_libraries(app.environ.get("LD_LIBRARY_PATH", "")),
    )


def _wanted(app: App, slurm_dir: str, conf: str) -> Wanted:
    try:
        effective = app.effective()
    except ConfigError as exc:
        return Wanted(Effective(Config(), {}, None), None, str(exc))
    try:
        known_conf = conf if Path(conf).exists() else None
        return Wanted(effective, hook_settings(effective, ROOT, slurm_dir, conf=known_conf), None)
    except ConfigError as exc:
        return Wanted(effective, None, str(exc))


def _command(app: App, slurm_dir: str, slurm_conf: str | None) -> str:
    """Return the command that installs the hooks as this check would have them."""
    program_path = Path(sys.executable).with_name("canhazgpu")
    words = [str(program_path) if program_path.exists() else "canhazgpu"]
    words += ["--config", app.config_file] if app.config_file else []
    words += ["hooks", "install", "--slurm-dir", slurm_dir]
    words += ["--slurm-conf", slurm_conf] if slurm_conf else []
    return shlex.join(words)


def _our_side(
    site: Settings, settings: HookSettings | None, slurm_dir: str, command: str
) -> OurSide:
    try:
        layout = fit(site, slurm_dir, {}, read_chained(chain_paths(site, slurm_dir), ROOT))
    except ConfigError as exc:
        return OurSide(None, str(exc), {}, {}, (), command)
    own = [place for place in layout.places if place.site]
    programs = tuple(
        program(place.site, by_users=place.key == "TaskProlog") for place in own if place.site
    )
    files = hook_files(settings, layout) if settings else []
    states = _states(files)
    differences = {
        str(one.path): why_different(one.path, one.text)
        for one in files
        if states[str(one.path)] == "different"
    }
    calls = says_health_check(site.get(HEALTH_KEY)) if site.get(HEALTH_KEY) else False
    return OurSide(layout, None, states, differences, programs, command, calls)


def _states(files: Sequence[HookFile]) -> dict[str, State]:
    try:
        return {str(path): state for path, state in look(files, ROOT).items()}
    except ConfigError:
        return {str(one.path): "absent" for one in files}


def _config_side(wanted: Wanted, ours: OurSide) -> ConfigSide:
    effective = wanted.effective
    file = effective.file.absolute() if effective.file else None
    users_file = DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.exists() else None
    closed = closed_to_users(users_file) if users_file else None
    return ConfigSide(
        config=effective.config,
        fault=wanted.fault,
        file=str(file) if file else None,
        file_open=file is not None and closed_to_users(file) is None,
        has_password=_has_password(effective.config.store.url),
        users_file=str(users_file) if users_file else None,
        users_closed=str(closed) if closed else None,
        python_closed=_python_closed(),
        unseen=unseen_by_hooks(effective),
        weak={**weak_places(effective), **_weak_scripts(ours)},
    )


def _python_closed() -> str | None:
    python = Path(sys.executable).absolute()
    closed = closed_to_users(python) or closed_to_users(python.resolve())
    return str(closed) if closed else None


def _weak_scripts(ours: OurSide) -> dict[str, tuple[str, ...]]:
    paths = (*ours.scripts, *(one.path for one in ours.site_scripts))
    weak = {path: changeable_by_others(Path(path)) for path in paths}
    return {path: tuple(map(str, places)) for path, places in weak.items() if places}


def _has_password(url: str) -> bool:
    try:
        return url != EMBEDDED and bool(parse_store_url(url).password)
    except CanhazgpuError:
        return False


def _text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.id) for finding in findings)
    lines = []
    for finding in findings:
        label = click.style(f"{finding.severity:7}", fg=COLOURS[finding.severity])
        found = printable(finding.found)
        wanted = f"; should be: {printable(finding.wanted)}" if finding.wanted else ""
        lines.append(f"{label} {finding.id:{width}} {found}{wanted}")
        if finding.fix:
            lines.append(f"{'':7} {'':{width}} {printable(finding.fix)}")
    return "\n".join((*lines, "", _summary(findings)))


def _summary(findings: Sequence[Finding]) -> str:
    counts = {one: sum(finding.severity == one for finding in findings) for one in COLOURS}
    return f"{counts['error']} errors, {counts['warning']} warnings, {counts['ok']} checks passed"


def _as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "result": worst(findings),
        "findings": [
            {key: value or None for key, value in asdict(finding).items()} for finding in findings
        ],
    }
