"""The settings of systemd's units for the agent, from the configuration that hooks see."""

from __future__ import annotations

from pathlib import Path

from canhazgpu.cli.hook_site.script_settings import hook_settings
from canhazgpu.config import EffectiveConfig
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import ConfigError
from canhazgpu.ledger.store.url import EMBEDDED
from canhazgpu.node.identity import node_name
from canhazgpu.schedulers.slurm.site.installed_files import under_root
from canhazgpu.templates.agent_units import UnitSettings
from canhazgpu.templates.slurm_files import DEFAULT_SLURM_DIR


def unit_settings(
    effective: EffectiveConfig, root: Path, node: str | None
) -> tuple[UnitSettings, tuple[str, ...]]:
    """Return the settings, and warnings; raises `ConfigError` for what a unit cannot have.

    `node` is the name of the one of several slurmd, None for the host's own.
    """
    config = effective.config
    hooks = hook_settings(effective, root, DEFAULT_SLURM_DIR)
    is_image = root != Path("/")
    name = node or (config.node.name if is_image else node_name(config.node, {}))
    if not name and "%n" in config.node.state_dir:
        raise ConfigError("node.state_dir contains %n: name the image's node with --node")
    store_dir, warning = _store_directory(config.store, root)
    settings = UnitSettings(
        python=hooks.python,
        state_dir=config.node.state_dir.replace("%n", name),
        node=node,
        config_file=hooks.config_file,
        store_dir=store_dir,
    )
    paths = (settings.python, settings.state_dir, settings.config_file, settings.store_dir)
    for path in filter(None, paths):
        if any(ord(letter) < 32 for letter in path):
            raise ConfigError(f"{path!r} has a control character, which no unit can have")
    return settings, (warning,) if warning else ()


def _store_directory(store: StoreConfig, root: Path) -> tuple[str | None, str]:
    """Return the directory of an embedded store that root keeps, None for none; and a warning."""
    if store.url != EMBEDDED:
        return None, ""
    try:
        uid = under_root(root, Path(store.embedded_dir)).lstat().st_uid
    except OSError:
        uid = 0
    if uid != 0:
        return None, (
            f"the embedded store in {store.embedded_dir} belongs to uid {uid}, not root: it gets no"
            " unit, and root's hooks cannot write to it"
        )
    return store.embedded_dir, ""
