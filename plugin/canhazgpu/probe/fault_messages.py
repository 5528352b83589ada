"""The texts for faults of a GPU or the driver, each with the next step; pure.

The codes are NVML's (``nvmlReturn_t``). nvidia-smi prints the same words. The exit statuses that
its documentation lists have texts of their own; beyond them it exits with NVML's codes.
"""

from __future__ import annotations

NOT_SUPPORTED = 3
NO_PERMISSION = 4

CHECK_DMESG = "look for NVRM and Xid in 'dmesg', and reboot the node if it stays"

ADVICE_BY_CODE: dict[int, str] = {
    1: "scan again",
    2: "the GPU went away during the scan: scan again",
    NOT_SUPPORTED: "this driver does not tell it of this GPU: update the driver",
    NO_PERMISSION: "scan as root, or allow the device files /dev/nvidia*",
    6: "the GPU went away during the scan: scan again",
    7: "the list grew while it was read: scan again",
    8: "check the power cables of the GPU",
    9: "load the driver with 'modprobe nvidia', or install it",
    10: CHECK_DMESG,
    11: CHECK_DMESG,
    12: "install the driver's libraries, or set validation.nvml_library",
    13: "the driver is older than this call: update the driver",
    14: "have the GPU replaced",
    15: "reboot the node, and have the GPU checked if it is lost again",
    16: "reset it with 'nvidia-smi --gpu-reset', or reboot the node",
    17: "check the cgroup and the permissions of /dev/nvidia*",
    18: "the driver was updated under the running one: reboot, or reload the nvidia modules",
    19: "end the other client, and scan again",
    20: "free memory on the node",
    25: "the driver is older than this call: update the driver",
    999: CHECK_DMESG,
}
"""The next step for each of NVML's errors; for any other it is `CHECK_DMESG`."""

ADVICE_BY_EXIT_STATUS: dict[int, str] = {
    2: "this nvidia-smi does not know what it was asked for: update the driver",
    3: "a GPU does not offer what it was asked for: update the driver",
    4: ADVICE_BY_CODE[NO_PERMISSION],
    6: "it did not find a GPU that it was asked for: compare with 'nvidia-smi -L', and scan again",
    8: ADVICE_BY_CODE[8],
    9: ADVICE_BY_CODE[9],
    10: f"a GPU's interrupts do not arrive: {CHECK_DMESG}",
    12: "NVML's library was not found: install the driver's libraries",
    13: "NVML's library is of another version than nvidia-smi: install the driver anew",
    14: ADVICE_BY_CODE[14],
    15: ADVICE_BY_CODE[15],
    255: f"an error inside the driver: {CHECK_DMESG}",
}
"""The next step for each exit status of nvidia-smi; source: ``man nvidia-smi``, RETURN VALUE."""

_CODE_BY_TEXT: dict[str, int] = {
    "n/a": NOT_SUPPORTED,
    "not supported": NOT_SUPPORTED,
    "insufficient permissions": NO_PERMISSION,
    "not found": 6,
    "gpu is lost": 15,
    "gpu requires reset": 16,
    "gpu requires restart": 16,
    "unknown error": 999,
}
"""The words that nvidia-smi prints instead of a value, and the error code that they mean."""

MIG_WITHOUT_INSTANCES = (
    "MIG is on but has no instances: create them with 'nvidia-smi mig -cgi', or turn MIG off"
)
MIG_NEEDS_NVML = "MIG needs NVML: nvidia-smi does not tell what each instance holds"
UNIFIED_NEEDS_NVML = "no memory is told: only NVML tells of every process on such a GPU"
NO_NVIDIA_SMI = (
    "nvidia-smi is in none of the usual places: install the driver, or set validation.nvidia_smi"
)
NO_UUID = "the driver tells no UUID for it: update the driver"


def is_lost_fault(fault: str | None) -> bool:
    """Tell whether a GPU's fault, of either source, is that it fell off the bus."""
    return fault is not None and "gpu is lost" in fault.lower()


def nvml_fault(words: str, code: int) -> str:
    """Return NVML's own words with its number and the next step."""
    step = ADVICE_BY_CODE.get(code, CHECK_DMESG)
    return f"{words.rstrip('.')} (NVML error {code}): {step}"


def library_fault(problem: str) -> str:
    """Return what is wrong with the NVML library's file, with the next step."""
    return f"{problem}: correct validation.nvml_library, or leave it empty"


def value_fault(field: str, words: str) -> str:
    """Return what nvidia-smi printed instead of a value, with the next step."""
    step = ADVICE_BY_CODE[_CODE_BY_TEXT.get(words.lower(), 999)]
    return f"{words} ({field} of nvidia-smi): {step}"


def exit_fault(line: str, status: int) -> str:
    """Return the line with which nvidia-smi failed, with the next step for its exit status."""
    if status < 0:
        return f"{line.rstrip('.')} (ended by signal {-status}): {CHECK_DMESG}"
    step = ADVICE_BY_EXIT_STATUS.get(status) or ADVICE_BY_CODE.get(status, CHECK_DMESG)
    return f"{line.rstrip('.')} (exit status {status}): {step}"


CORRUPTED_INFOROM = exit_fault("infoROM is corrupted", 14)


def child_fault(problem: str) -> str:
    """Return how the process that read the GPUs ended, with the next step."""
    return f"{problem}: {CHECK_DMESG}"


def program_fault(problem: str) -> str:
    """Return why nvidia-smi could not be run, with the next step."""
    return f"{problem}: correct validation.nvidia_smi, or leave it empty"


def output_fault(problem: str) -> str:
    """Return what is wrong with nvidia-smi's output, with the next step."""
    return f"{problem}: run 'nvidia-smi' by hand to see why"


def impossible_pid_fault(pid: int) -> str:
    """Return the text for an impossible pid; drivers 535.43 to 535.85 report such ones."""
    return f"process id {pid} cannot be: update the driver (535.43 to 535.85 report such ids)"


def impossible_count_fault(what: str, count: int) -> str:
    """Return the text for a number of GPUs, or of their instances, that no machine has."""
    return f"the driver reports {count} {what}: see 'nvidia-smi -L', and update or reload it"


def shared_uuid_fault(uuid: str) -> str:
    """Return the text for a UUID that several GPUs have."""
    return f"several GPUs have the UUID {uuid}: see 'nvidia-smi -L', and reset them"


def impossible_uuid_fault(uuid: str) -> str:
    """Return the text for a UUID of no known form."""
    return f"{uuid!r} is no UUID of a GPU: see 'nvidia-smi -L', and update the driver"
