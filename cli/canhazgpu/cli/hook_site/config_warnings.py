"""What in the configuration hooks cannot see, and what of it root should not trust."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.config import EffectiveConfig
from canhazgpu.schedulers.slurm.site.file_permissions import changeable_by_others
from canhazgpu.templates import render as templates


def keys_invisible_to_hooks(effective: EffectiveConfig) -> dict[str, str]:
    """Return the keys whose values come from where hooks do not look, and that origin."""
    return {
        key: origin
        for key, origin in effective.origins.items()
        if not origin.startswith(("default", "file"))
    }


def paths_changeable_by_others(effective: EffectiveConfig) -> dict[str, tuple[str, ...]]:
    """Return what others than root can change of what root runs or reads, by what that is."""
    library = effective.config.validation.nvml_library
    trusted = (
        Path(sys.executable),
        Path(templates.__file__),
        effective.file,
        Path(library) if library else None,
    )
    weak = {str(path): changeable_by_others(path.absolute()) for path in trusted if path}
    return {path: tuple(map(str, places)) for path, places in weak.items() if places}


def config_warnings(effective: EffectiveConfig) -> Iterator[str]:
    """Tell what root would run or read on another user's word, and what hooks will not see."""
    for path, places in paths_changeable_by_others(effective).items():
        yield (
            f"root will trust {path}, which others than root can change through {', '.join(places)}"
        )
    for key, origin in keys_invisible_to_hooks(effective).items():
        yield f"{key} comes from {origin}, which Slurm's hooks do not see"
