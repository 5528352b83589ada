"""Warnings about the configuration: what hooks cannot see, and what root should not trust."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.config import EffectiveConfig
from canhazgpu.schedulers.slurm.site.file_permissions import changeable_by_others
from canhazgpu.templates import render as templates


def keys_invisible_to_hooks(effective: EffectiveConfig) -> dict[str, str]:
    """Return each key whose value hooks do not see, with the origin of the value."""
    return {
        key: origin
        for key, origin in effective.origins.items()
        if not origin.startswith(("default", "file"))
    }


def paths_changeable_by_others(effective: EffectiveConfig) -> dict[str, tuple[str, ...]]:
    """Return, for each path that root runs or reads, what others than root can change of it.

    A path of which they can change nothing is left out.
    """
    config = effective.config
    named = (
        config.validation.nvml_library,
        config.store.login_file,
        # A node's own directory is made by its agent or its first hook.
        config.node.state_dir.partition("%n")[0],
        config.node.marker_dir,
        config.store.embedded_dir if config.store.url == "embedded" else "",
    )
    trusted = (
        Path(sys.executable),
        Path(templates.__file__),
        effective.file,
        *(Path(one) for one in named if one),
    )
    changeable = {str(path): changeable_by_others(path.absolute()) for path in trusted if path}
    return {path: tuple(map(str, paths)) for path, paths in changeable.items() if paths}


def config_warnings(effective: EffectiveConfig) -> Iterator[str]:
    """Yield a warning for each path that others can change, and each key that hooks do not see."""
    for path, paths in paths_changeable_by_others(effective).items():
        yield (
            f"root will trust {path}, which others than root can change through {', '.join(paths)}"
        )
    for key, origin in keys_invisible_to_hooks(effective).items():
        yield f"{key} comes from {origin}, which Slurm's hooks do not see"
