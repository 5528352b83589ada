"""Where Slurm finds hooks that ``slurm.conf`` names without a directory; pure.

From 23.11 on, a relative name is below the directory of ``slurm.conf`` (seen on 26.05, for patterns
as well). On a configless node that is slurmd's copy of the controller's files. The controller sends
a script that a key names, and no directory: a relative pattern drains a configless node (seen on
26.05).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.layout import JOB_SCRIPT_KEYS

RELATIVE_HOOKS_SINCE = (23, 11)
CONF_CACHE = "conf-cache"
"""The directory of a configless slurmd's copies, below SlurmdSpoolDir."""


def with_absolute_hooks(settings: Settings, conf: str) -> Settings:
    """Return the settings of this slurm.conf with the absolute paths of its hooks."""
    directory = PurePosixPath(conf).parent
    values = dict(settings.values)
    for key in map(str.lower, JOB_SCRIPT_KEYS):
        if key in values:
            values[key] = tuple(str(directory / value) for value in values[key])
    return Settings(values)


def relative_hooks(settings: Settings) -> tuple[str, ...]:
    """Return the lines of hooks whose names are relative."""
    return tuple(
        f"{key}={value}"
        for key in JOB_SCRIPT_KEYS
        for value in settings.all(key)
        if not value.startswith("/")
    )


def finds_relative_hooks(version: str | None) -> bool:
    """Tell whether this release of Slurm finds them; True for an unknown one."""
    found = re.search(r"(\d+)\.(\d+)", version or "")
    return found is None or (int(found[1]), int(found[2])) >= RELATIVE_HOOKS_SINCE


def refuse_copied_hooks(settings: Settings, given: Collection[str]) -> None:
    """Raise `ConfigError` for a hook among a configless slurmd's copies of the controller's files.

    canhazgpu's script would take its place in slurm.conf, and the controller would send it no
    longer. `given` are the keys for which the administrator names the site's script.
    """
    for key in JOB_SCRIPT_KEYS:
        for value in () if key in given else settings.all(key):
            if _is_copy_of_controllers(value):
                raise ConfigError(
                    f"{key}={value} is a copy of the controller's file, which this node has only"
                    " while slurm.conf names it: put the script on every node, and name it with"
                    f" --chain {key}=/its/path, or give --chain {key}= for none"
                )


def _is_copy_of_controllers(path: str) -> bool:
    copies = PurePosixPath(names.CONFIGLESS_CONF).parent
    return copies in PurePosixPath(path).parents or CONF_CACHE in PurePosixPath(path).parts
