"""The srun and salloc commands that ask Slurm for GPUs; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def srun_command(
    node: str,
    gpus: int,
    command: Sequence[str],
    *,
    terminal: bool,
    limit_s: float | None,
    profile: str = "",
) -> list[str]:
    """Return the srun command that runs `command` on this node with `gpus` GPUs.

    The profile of a MIG instance is Slurm's type of it, as gres.conf usually names it.
    """
    words = ["srun", "--nodes=1", "--ntasks=1", f"--nodelist={node}", _gres_option(gpus, profile)]
    words += [] if limit_s is None else [f"--time={_minutes(limit_s)}"]
    words += ["--pty"] if terminal else []
    return [*words, "--", *command]


def salloc_command(
    node: str, gpus: int, limit_s: float, comment: str, *, profile: str = ""
) -> list[str]:
    """Return the salloc command that holds `gpus` GPUs on this node for `limit_s`."""
    words = ["salloc", "--no-shell", "--nodes=1", f"--nodelist={node}"]
    words += [_gres_option(gpus, profile)]
    words += [f"--time={_minutes(limit_s)}", "--job-name=canhazgpu-reserve"]
    return words + ([f"--comment={comment}"] if comment else [])


def _gres_option(gpus: int, profile: str) -> str:
    return f"--gres=gpu:{profile}:{gpus}" if profile else f"--gres=gpu:{gpus}"


def _minutes(seconds: float) -> int:
    # Slurm's times are whole minutes; rounding down would end the work early.
    return max(math.ceil(seconds / 60), 1)
