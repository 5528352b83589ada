"""Give up the capabilities of root that reading GPUs and processes takes no part of.

Numbers and structures are those of linux/capability.h and linux/prctl.h.
"""

from __future__ import annotations

import ctypes

PR_CAPBSET_DROP = 24
VERSION_3 = 0x20080522
LAST_CAPABILITY = 63

KEPT: dict[str, int] = {
    # Files of other users, and what the driver's own nvidia-modprobe makes and loads.
    "chown": 0,
    "dac_override": 1,
    "dac_read_search": 2,
    "fowner": 3,
    "setgid": 6,
    "setuid": 7,
    "sys_module": 16,
    "mknod": 27,
    # Processes of other users: their programs, and an nvidia-smi that hangs.
    "kill": 5,
    "sys_ptrace": 19,
    # The driver tells some things only to an administrator.
    "ipc_lock": 14,
    "sys_rawio": 17,
    "sys_admin": 21,
    "sys_nice": 23,
    "sys_resource": 24,
}


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop_capabilities() -> None:
    """Keep `KEPT` alone, for this process and what it starts; without any it keeps none.

    Where the kernel refuses, as in some containers, everything stays as it is.
    """
    libc = ctypes.CDLL(None)
    header, data = _Header(VERSION_3, 0), (_Data * 2)()
    if libc.capget(ctypes.byref(header), data) != 0:
        return
    for number in range(LAST_CAPABILITY + 1):
        if number not in KEPT.values():
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    for half in (0, 1):
        kept = sum(1 << number % 32 for number in KEPT.values() if number // 32 == half)
        data[half].permitted &= kept
        data[half].effective &= kept
        data[half].inheritable = 0
    libc.capset(ctypes.byref(header), data)
