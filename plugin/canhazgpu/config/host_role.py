"""Hosts that have no GPUs of their own (`agent.role = "reader"`): login hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.errors import InputError

if TYPE_CHECKING:
    from canhazgpu.config.schema import Config

READER = "reader"


def has_own_gpus(config: Config) -> bool:
    """Return whether this host is a node, whose GPUs it scans and grants."""
    return config.agent.role != READER


def require_own_gpus(config: Config, what: str, instead: str) -> None:
    """Raise `InputError` on a host without GPUs; `instead` says what to do there."""
    if not has_own_gpus(config):
        raise InputError(
            f'no GPU is {what} on this host, which has none (agent.role = "{READER}"): {instead}'
        )


def require_gpus_to_hold(config: Config) -> None:
    """Raise `InputError` on a host without GPUs, where nobody can reserve one."""
    require_own_gpus(
        config,
        "reserved",
        "ask Slurm for one, as with 'srun --gres=gpu:1', or log in to a node;"
        " 'canhazgpu status' shows which have free ones",
    )
