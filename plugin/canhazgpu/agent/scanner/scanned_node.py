"""The probe of a node whose GPUs the agent's scanner reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from canhazgpu.agent.scanner.client import ScannerSource
from canhazgpu.config.schema import Config
from canhazgpu.node.identity import state_dir
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.port import GpuProbe
from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, has_mps


def open_scanned_node(
    scanner_socket: Path, node: str, config: Config, environ: Mapping[str, str]
) -> GpuProbe:
    """Return the probe of this node; nothing is asked yet."""
    conf, directory = conf_path(environ), state_dir(config.node, node)
    return NodeProbe(
        node,
        config.validation,
        hook_attribution(conf, node, directory),
        lambda: has_mps(conf, node),
        ScannerSource(scanner_socket, conf, directory),
    )
