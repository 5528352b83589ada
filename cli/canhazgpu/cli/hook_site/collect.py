"""Collect the state of the site that `canhazgpu hooks check` checks."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.cli.app import App
from canhazgpu.cli.hook_site.agent_state import agent_state
from canhazgpu.cli.hook_site.config_warnings import (
    keys_invisible_to_hooks,
    paths_changeable_by_others,
)
from canhazgpu.cli.hook_site.script_settings import hook_files, hook_settings
from canhazgpu.cli.hook_site.store_login import (
    exposed_login_file,
    has_secret_password,
    shared_login,
)
from canhazgpu.config import DEFAULT_CONFIG_FILE, Config, EffectiveConfig
from canhazgpu.errors import ConfigError
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.collect import (
    collect_slurm_state,
    find_nvml_libraries,
    find_slurm_conf,
)
from canhazgpu.schedulers.slurm.site.file_permissions import (
    changeable_by_others,
    find_closed_to_users,
)
from canhazgpu.schedulers.slurm.site.hook_paths import refuse_copied_hooks
from canhazgpu.schedulers.slurm.site.hook_probe import probe_as_hook, with_store_settings
from canhazgpu.schedulers.slurm.site.install import (
    HookFile,
    describe_difference,
    find_script_states,
    read_chained_scripts,
)
from canhazgpu.schedulers.slurm.site.layout import (
    HEALTH_KEY,
    ScriptState,
    chain_script_paths,
    plan_layout,
)
from canhazgpu.schedulers.slurm.site.programs import calls_our_health_check, inspect_program
from canhazgpu.schedulers.slurm.site.state import (
    ConfigState,
    HookProbeResult,
    InstalledHooks,
    SiteState,
)
from canhazgpu.schedulers.slurm.site.state_dir import inspect_state_dir
from canhazgpu.templates.slurm_files import HookSettings

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class ExpectedSettings:
    """The settings that the installed scripts should have.

    `effective` is the default configuration if the real one is invalid. `settings` is None if the
    scripts cannot have any; `fault` then says why.
    """

    effective: EffectiveConfig
    settings: HookSettings | None
    fault: str | None


def collect_site_state(app: App, slurm_dir: str, slurm_conf: str | None) -> SiteState:
    """Collect the state of this node, of Slurm's configuration and of the installed hooks."""
    conf = find_slurm_conf(slurm_conf, app.environ, slurm_dir, ROOT)
    expected = _expected_settings(app, slurm_dir, conf)
    config = expected.effective.config
    node = node_name(config.node, app.environ)
    slurm = collect_slurm_state(conf, node, socket.gethostname().split(".")[0], config.slurm)
    settings = expected.settings
    installed = _installed_hooks(
        slurm.settings, settings, slurm_dir, _install_command(app, slurm_dir, slurm_conf)
    )
    return SiteState(
        node=node,
        as_root=os.geteuid() == 0,
        slurm=slurm,
        installed=installed,
        config=_config_state(expected, installed, node),
        state_dir=inspect_state_dir(
            state_dir(config.node, node), node, Path(config.node.marker_dir)
        ),
        hook_probe=with_store_settings(
            probe_as_hook(settings.python, settings.config_file, config, conf, node), config.store
        )
        if settings
        else HookProbeResult(),
        agent=agent_state(state_dir(config.node, node), node),
        nvml_libraries=find_nvml_libraries(app.environ.get("LD_LIBRARY_PATH", "")),
    )


def _expected_settings(app: App, slurm_dir: str, conf: str) -> ExpectedSettings:
    try:
        effective = app.effective_config()
    except ConfigError as exc:
        return ExpectedSettings(EffectiveConfig(Config(), {}, None), None, str(exc))
    try:
        known_conf = conf if may_exist(Path(conf)) else None
        return ExpectedSettings(
            effective, hook_settings(effective, ROOT, slurm_dir, conf=known_conf), None
        )
    except ConfigError as exc:
        return ExpectedSettings(effective, None, str(exc))


def _install_command(app: App, slurm_dir: str, slurm_conf: str | None) -> str:
    """Return the command that installs the hooks that this check expects."""
    program_path = Path(sys.executable).with_name("canhazgpu")
    words = [str(program_path) if may_exist(program_path) else "canhazgpu"]
    words += ["--config", app.config_file] if app.config_file else []
    words += ["hooks", "install", "--slurm-dir", slurm_dir]
    words += ["--slurm-conf", slurm_conf] if slurm_conf else []
    return shlex.join(words)


def _installed_hooks(
    site: Settings, settings: HookSettings | None, slurm_dir: str, command: str
) -> InstalledHooks:
    try:
        refuse_copied_hooks(site, ())
        layout = plan_layout(
            site, slurm_dir, {}, read_chained_scripts(chain_script_paths(site, slurm_dir), ROOT)
        )
    except ConfigError as exc:
        return InstalledHooks(None, str(exc), {}, {}, (), command)
    site_locations = [place for place in layout.locations if place.site]
    programs = tuple(
        inspect_program(place.site, by_users=place.key == "TaskProlog")
        for place in site_locations
        if place.site
    )
    chained = tuple(
        inspect_program(place.script, by_users=True)
        for place in site_locations
        if place.key == "TaskProlog" and place.chain
    )
    files = hook_files(settings, layout) if settings else []
    states = _script_states(files)
    differences = {
        str(one.path): describe_difference(one.path, one.text)
        for one in files
        if states[str(one.path)] == "different"
    }
    calls = calls_our_health_check(site.get(HEALTH_KEY)) if site.get(HEALTH_KEY) else False
    return InstalledHooks(layout, None, states, differences, programs, command, calls, chained)


def _script_states(files: Sequence[HookFile]) -> dict[str, ScriptState]:
    try:
        return {str(path): state for path, state in find_script_states(files, ROOT).items()}
    except ConfigError:
        return {str(one.path): "absent" for one in files}


def _config_state(expected: ExpectedSettings, installed: InstalledHooks, node: str) -> ConfigState:
    effective = expected.effective
    file = effective.file.absolute() if effective.file else None
    users_file = DEFAULT_CONFIG_FILE if may_exist(DEFAULT_CONFIG_FILE) else None
    blocked_by = find_closed_to_users(users_file) if users_file else None
    return ConfigState(
        config=effective.config,
        fault=expected.fault,
        file=str(file) if file else None,
        is_world_readable=file is not None and find_closed_to_users(file) is None,
        has_password=has_secret_password(effective.config.store),
        users_file=str(users_file) if users_file else None,
        users_file_blocked_by=str(blocked_by) if blocked_by else None,
        python_blocked_by=_python_blocked_by(),
        invisible_to_hooks=keys_invisible_to_hooks(effective),
        changeable_paths={
            **paths_changeable_by_others(effective),
            **_scripts_changeable_by_others(installed),
        },
        exposed_login_file=exposed_login_file(effective.config.store),
        shared_login=shared_login(effective.config.store, node),
    )


def _python_blocked_by() -> str | None:
    python = Path(sys.executable).absolute()
    blocked_by = find_closed_to_users(python) or find_closed_to_users(python.resolve())
    return str(blocked_by) if blocked_by else None


def _scripts_changeable_by_others(installed: InstalledHooks) -> dict[str, tuple[str, ...]]:
    paths = (*installed.scripts, *(one.path for one in installed.site_scripts))
    changeable = {path: changeable_by_others(Path(path)) for path in paths}
    return {path: tuple(map(str, places)) for path, places in changeable.items() if places}
