"""The general settings of ``slurm.conf``, without its nodes and partitions; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field

from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.conf.parser import ConfLine

_ENTITY_KEYS = frozenset({"nodename", "partitionname", "downnodes", "frontendname", "nodeset"})
"""Keys of lines about a node, a partition or the like: such a line has no general settings."""

_SHOW_CONFIG_LINE = re.compile(r"(\w+)(?:\[\d+\])?\s*= (.*)")
UNSET_VALUES = ("", "(null)", "none")
_NO_PLUGIN = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings by key in lower case, each with all its values in the file's order.

    Slurm uses the last value of most keys. Newer releases use all values of Prolog and Epilog.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def all(self, key: str) -> tuple[str, ...]:
        """Return every value of the key that is set."""
        return self.values.get(key.lower(), ())

    def get(self, key: str) -> str:
        """Return the key's last value, empty if it is not set."""
        found = self.all(key)
        return found[-1] if found else ""

    def words(self, key: str) -> tuple[str, ...]:
        """Return a comma-separated value's words in lower case, as Slurm compares them."""
        return tuple(one.strip().lower() for one in self.get(key).split(",") if one.strip())

    def plugins(self, key: str, kind: str) -> tuple[str, ...]:
        """Return the plugins of this kind in the key's value, see `plugin_names`."""
        return plugin_names(self.get(key), kind)

    def number(self, key: str) -> int | None:
        """Return the value as a number, None if it is not one."""
        text = self.get(key)
        return int(text) if text.isascii() and text.isdecimal() else None


def plugin_names(value: str, kind: str) -> tuple[str, ...]:
    """Return the plugins in a comma-separated value, in lower case and without their prefix.

    ``task/affinity,cgroup`` has the plugins ``affinity`` and ``cgroup`` of the kind ``task``:
    Slurm adds the prefix to a word that lacks it. ``scontrol show config`` shows it from 24.11 on.
    """
    words = (word.strip().lower() for word in value.split(","))
    return tuple(word.removeprefix(f"{kind}/") for word in words if word)


def collect_settings(lines: Iterable[Mapping[str, str]]) -> Settings:
    """Collect the settings from the parsed lines of ``slurm.conf``."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if not _ENTITY_KEYS & line.keys():
            for key, value in line.items():
                _add(found, key, value)
    return Settings(found)


def has_task_cgroup(lines: Iterable[ConfLine]) -> bool:
    """Tell whether Slurm loads task/cgroup; raises `ConfigError` where its releases differ.

    Measured: with ``none`` anywhere in TaskPlugin, 24.11 and 26.05 load no task plugin at all, and
    22.05 those beside it.
    """
    line = next((one for one in reversed(tuple(lines)) if "taskplugin" in one.pairs), None)
    value = line.pairs["taskplugin"] if line else ""
    found = "cgroup" in plugin_names(value, "task")
    if found and line and _NO_PLUGIN in value.lower():
        raise ConfigError(
            f"{line.origin}: TaskPlugin={value[:80]} constrains devices with some releases of Slurm"
            " and loads no plugin with others: remove none"
        )
    return found


def parse_show_config(text: str) -> Settings:
    """Collect the settings from the output of ``scontrol show config``."""
    found: dict[str, tuple[str, ...]] = {}
    for match in map(_SHOW_CONFIG_LINE.fullmatch, text.splitlines()):
        if match:
            _add(found, match[1].lower(), match[2].strip())
    return Settings(found)


def _add(found: dict[str, tuple[str, ...]], key: str, value: str) -> None:
    if value.lower() not in UNSET_VALUES:
        found[key] = (*found.get(key, ()), value)
