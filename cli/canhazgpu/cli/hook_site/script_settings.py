"""The settings that are written into hook scripts, from the configuration that hooks see."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from canhazgpu.cli.version import VERSION
from canhazgpu.config import DEFAULT_CONFIG_FILE, EffectiveConfig
from canhazgpu.config.schema import NodeConfig
from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.site.checksum import with_checksum
from canhazgpu.schedulers.slurm.site.collect import is_default_conf
from canhazgpu.schedulers.slurm.site.install import HookFile
from canhazgpu.schedulers.slurm.site.layout import Layout
from canhazgpu.templates.slurm_files import (
    DEFAULT_GPUS,
    HookSettings,
    site_script_texts,
)

KEYS_WRITTEN_INTO_SCRIPTS = ("node.name", "node.state_dir")
"""Keys whose values are written into the scripts: the environment does not reach hooks."""


def hook_settings(
    effective: EffectiveConfig,
    root: Path,
    slurm_dir: str,
    gpus: int = DEFAULT_GPUS,
    conf: str | None = None,
) -> HookSettings:
    """Return the settings of the scripts; raises `ConfigError` for a value hooks would not see.

    `root` is the directory of the node's image, ``/`` for this node. `conf` is the path of
    slurm.conf on the node, None if there is none.
    """
    for key in KEYS_WRITTEN_INTO_SCRIPTS:
        origin = effective.origins[key]
        if not origin.startswith(("default", "file")):
            raise ConfigError(
                f"{key} comes from {origin}, which Slurm's hooks do not see; set it in"
                f" {effective.file or DEFAULT_CONFIG_FILE}"
            )
    config = effective.config
    return HookSettings(
        python=_path_on_node(Path(sys.executable), root),
        client=_path_on_node(hook_client_file(), root),
        config_file=_path_on_node(effective.file, root) if effective.file else None,
        state_dir=_state_dir(config.node),
        hook_deadline_s=config.slurm.hook_deadline_s,
        command_timeout_s=config.slurm.command_timeout_s,
        slurm_dir=slurm_dir,
        gpus=gpus,
        slurm_conf=None if conf is None or is_default_conf(conf) else conf,
    )


def installed_version() -> str:
    """Return this release's version."""
    return VERSION


def hook_client_file() -> Path:
    """Return the program by which hooks ask the node's agent."""
    found = find_spec("canhazgpu.agent.hook_client")
    if found is None or found.origin is None:
        raise AssertionError("the wheel has the hooks' client")
    return Path(found.origin)


def hook_files(settings: HookSettings, layout: Layout) -> list[HookFile]:
    """Return the scripts of a site, with their checksums."""
    texts = site_script_texts(settings, layout)
    version = installed_version()
    return [HookFile(Path(path), with_checksum(text, version)) for path, text in texts.items()]


def _path_on_node(path: Path, root: Path) -> str:
    # Not resolved: a virtual environment's interpreter is a link, and must be started by that name.
    absolute = path.absolute()
    if absolute.is_relative_to(root):
        absolute = Path("/") / absolute.relative_to(root)
    return str(absolute)


def _state_dir(node: NodeConfig) -> str:
    return node.state_dir.replace("%n", node.name) if node.name else node.state_dir
