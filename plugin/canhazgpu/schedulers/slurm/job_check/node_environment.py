"""What of the agent's own environment says which node it serves; nothing of a caller's."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.config.load import load
from canhazgpu.errors import ConfigError
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.attribution.groups_record import recorded_conf

KEPT = (names.NODE_NAME, names.SLURM_CONF)
KEPT_PREFIX = "CANHAZGPU_"


def node_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name the node and its configuration."""
    return {
        name: text for name, text in environ.items() if name in KEPT or name.startswith(KEPT_PREFIX)
    }


def with_recorded_conf(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the slurm.conf that hooks were given, if it names none."""
    given = dict(environ)
    if names.SLURM_CONF in given:
        return given
    try:
        node_config = load(given).config.node
    except ConfigError:
        return given
    found = recorded_conf(state_dir(node_config, node_name(node_config, given)))
    return {**given, names.SLURM_CONF: found} if found else given
