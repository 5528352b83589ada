"""The checks of the GPUs, as the driver and Slurm show them; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.errors import InputError
from canhazgpu.gpu.health import (
    checks_with_mps,
    count_text,
    count_whole_gpus,
    missing_gpus_text,
    unhealthy_gpus,
)
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.gres_line import gres_lines_advice
from canhazgpu.schedulers.slurm.conf.slurmd_answer import (
    SlurmdAnswer,
    agreed_devices,
    conf_stamps,
    driver_gpus,
)
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

NO_UUID = "its UUID cannot be read"


def gpus(site: SiteState) -> Iterator[Problem]:
    """Find GPUs that hooks cannot read."""
    if site.slurm.knows_node and not _has_gpus(site):
        return
    if fault := site.hook_probe.gpu_fault:
        file = site.config.file or "/etc/canhazgpu/config.toml"
        library = site.nvml_libraries[0] if site.nvml_libraries else "/path/to/libnvidia-ml.so.1"
        yield Problem(
            "error",
            f"{fault} (as slurmd's hooks run: without LD_LIBRARY_PATH)",
            "a library that loads",
            f'nvml_library = "{library}" in [validation] of {file}',
        )
        return
    seen = site.hook_probe.gpus
    for gpu in seen:
        if gpu.fault is not None or not gpu.uuid:
            yield Problem(
                "error",
                f"GPU {gpu.display_index} cannot be read: {gpu.fault or NO_UUID}",
                "GPUs that the driver can read",
                f"nvidia-smi -q -i {gpu.index}; dmesg; reset the GPU, or reboot the node",
            )
    validation = site.config.config.validation
    expected = validation.expected_gpus or site.hook_probe.known_gpus
    if text := missing_gpus_text(expected, count_whole_gpus(seen)):
        yield Problem(
            "error",
            text,
            f"{expected} GPUs",
            "nvidia-smi -L; dmesg; reboot the node, or if they were taken out:"
            f" canhazgpu validate --publish --expected-gpus {count_whole_gpus(seen)}",
        )
    for uuid, reason in unhealthy_gpus(seen, _health_checks(site)).items():
        yield Problem("warning", f"GPU {uuid}: {reason}", "healthy GPUs", "canhazgpu validate")


def _health_checks(site: SiteState) -> tuple[str, ...]:
    checks = site.config.config.validation.health_checks
    try:
        return checks_with_mps(checks) if "mps" in site.slurm.node_conf.shared_gres else checks
    except InputError:
        return checks


def _has_gpus(site: SiteState) -> bool:
    """Tell whether Slurm's files give the node any GPUs."""
    try:
        return bool(site.slurm.node_conf.gpu_count or site.slurm.node_conf.gpu_devices)
    except InputError:
        return True


def gpu_count(site: SiteState) -> Iterator[Problem]:
    """Find GPUs of Slurm that the driver does not show or that cannot be told apart, and others."""
    seen = site.hook_probe.gpus
    wanted = "as many GPUs in Gres=, gres.conf and 'nvidia-smi -L'"
    try:
        devices = _slurms_devices(site)
        assigned = gpus_at_positions(range(len(devices)), devices, seen)
    except InputError as exc:
        yield Problem("error", str(exc), wanted, gres_lines_advice(site.node, seen))
        return
    if len(assigned) < len(seen):
        yield Problem(
            "warning",
            f"Slurm counts {len(assigned)} GPUs on {site.node}, the driver shows"
            f" {count_text(seen)}",
            wanted,
            gres_lines_advice(site.node, seen, {gpu.uuid for gpu in assigned}),
        )


def _slurms_devices(site: SiteState) -> tuple[GpuDevice, ...]:
    """Return the GPUs in Slurm's order, as a hook would, but with slurmd's answer of now.

    Where slurmd detects GPUs, only the answer on record counts, as for a hook.
    """
    node_conf, seen = site.slurm.node_conf, site.hook_probe.gpus
    answer = site.state_dir.slurmd_answer
    if site.slurm.slurmd_devices is not None and not node_conf.gres_conf.autodetect:
        stamps, driver = conf_stamps(node_conf), driver_gpus(seen)
        answer = SlurmdAnswer(stamps, driver, None, "", 0.0, site.slurm.slurmd_devices)
    return agreed_devices(node_conf, seen, answer)
