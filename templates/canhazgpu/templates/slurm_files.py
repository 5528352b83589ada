"""The files canhazgpu gives to Slurm and Redis, as text: nothing here reads or writes a file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from canhazgpu.templates.render import render

DEFAULT_SLURM_DIR = "/etc/slurm"
DEFAULT_GPUS = 4

TIMEOUT_MARGIN_S = 15
"""How much longer than canhazgpu itself Slurm lets a hook run."""

WRITER = "canhazgpu"
UNSET_DIGEST = "PUT-THE-SHA256-OF-THE-PASSWORD-HERE"
"""No digest, so a server refuses it: no account is ever open by mistake."""


@dataclass(frozen=True, slots=True)
class HookSettings:
    """What the files say.

    `python` and `config_file` are absolute paths on the node, `config_file` None where the default
    one counts. ``%n`` in `state_dir` stands for the node's name. `writer_digest` is the SHA-256 of
    the Redis writer's password, in hex.
    """

    python: str
    config_file: str | None
    state_dir: str
    hook_deadline_s: float
    slurm_dir: str = DEFAULT_SLURM_DIR
    gpus: int = DEFAULT_GPUS
    writer: str = WRITER
    writer_digest: str = UNSET_DIGEST

    @property
    def prolog_epilog_timeout_s(self) -> int:
        """Slurm's limit for a hook, in whole seconds."""
        return math.ceil(self.hook_deadline_s) + TIMEOUT_MARGIN_S


HOOKS = {
    "prolog.sh": "prolog.d/canhazgpu.sh",
    "epilog.sh": "epilog.d/canhazgpu.sh",
    "task_prolog.sh": "canhazgpu/task_prolog.sh",
}
"""The scripts' templates, and where each goes below Slurm's directory."""

FRAGMENTS = {
    "slurm.conf": "slurm.conf.canhazgpu",
    "gres.conf": "gres.conf.example",
    "redis-acl": "redis-users.acl",
}
"""The other templates, and the names of what is made of them."""


def hook_texts(settings: HookSettings) -> dict[str, str]:
    """Return the scripts, by their paths below Slurm's directory."""
    return {path: render_one(name, settings) for name, path in HOOKS.items()}


def fragment_texts(settings: HookSettings) -> dict[str, str]:
    """Return what a person copies from, by file name."""
    return {path: render_one(name, settings) for name, path in FRAGMENTS.items()}


def render_one(name: str, settings: HookSettings) -> str:
    """Return one template filled in."""
    values = asdict(settings)
    return render(name, {**values, "prolog_epilog_timeout_s": settings.prolog_epilog_timeout_s})
