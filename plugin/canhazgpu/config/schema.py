"""The whole configuration, and all its keys by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from functools import cache
from types import MappingProxyType
from typing import Any

from canhazgpu.config.grant_sections import (
    DEFAULT_COMMAND_TIMEOUT_S,
    EpilogConfig,
    RunConfig,
    SlurmConfig,
)
from canhazgpu.config.key import KeyInfo
from canhazgpu.config.node_sections import (
    HEALTH_CHECKS,
    AgentConfig,
    MetricsConfig,
    NodeConfig,
    StoreConfig,
    ValidationConfig,
)
from canhazgpu.config.web_section import WebConfig
from canhazgpu.frozen_dataclass import dataclass

__all__ = [
    "DEFAULT_COMMAND_TIMEOUT_S",
    "HEALTH_CHECKS",
    "AgentConfig",
    "Config",
    "EpilogConfig",
    "Key",
    "MetricsConfig",
    "NodeConfig",
    "RunConfig",
    "SlurmConfig",
    "StoreConfig",
    "ValidationConfig",
    "WebConfig",
    "all_keys",
]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, one field per section."""

    store: StoreConfig = field(default_factory=StoreConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    epilog: EpilogConfig = field(default_factory=EpilogConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    run: RunConfig = field(default_factory=RunConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    web: WebConfig = field(default_factory=WebConfig)


SECTIONS: dict[str, type] = {
    "store": StoreConfig,
    "validation": ValidationConfig,
    "slurm": SlurmConfig,
    "epilog": EpilogConfig,
    "node": NodeConfig,
    "run": RunConfig,
    "agent": AgentConfig,
    "metrics": MetricsConfig,
    "web": WebConfig,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration: ``section.name``."""

    section: str
    name: str
    type: type
    default: Any
    info: KeyInfo

    @property
    def path(self) -> str:
        """The key as users write it, ``store.url``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets the key, ``CANHAZGPU_STORE_URL``."""
        return f"CANHAZGPU_{self.section}_{self.name}".upper()


_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "tuple[str, ...]": tuple}


@cache
def all_keys() -> Mapping[str, Key]:
    """Return all keys by path, in the order of the reference."""
    found = {}
    for section, kind in SECTIONS.items():
        for item in fields(kind):
            one = Key(
                section, item.name, _TYPES[str(item.type)], item.default, item.metadata["info"]
            )
            found[one.path] = one
    return MappingProxyType(found)
