"""The checks of what jobs and runs are told of their GPUs; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.allocation.numbered_choice import refuse_unnumbered
from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.site.state import Problem, Severity, SiteState


def cuda_index(site: SiteState) -> Iterator[Problem]:
    """Find GPUs that are to be named by CUDA's index, where this is not certain."""
    config = site.config.config
    if config.slurm.export == "index" and not site.slurm.node_conf.constrains_devices:
        yield from _uncertain_indices(site, "slurm.export", "error")
    if config.run.export == "index":
        yield from _uncertain_indices(site, "run.export", "warning")


def _uncertain_indices(site: SiteState, key: str, severity: Severity) -> Iterator[Problem]:
    gpus = site.hook_probe.gpus
    section, _, name = key.partition(".")
    try:
        refuse_unnumbered(gpus, {gpu.uuid for gpu in gpus if gpu.fault is None}, key)
    except InputError as exc:
        wanted = "CUDA's index of every GPU, or UUIDs"
        yield Problem(severity, str(exc), wanted, f'{name} = "uuid" in [{section}]')
