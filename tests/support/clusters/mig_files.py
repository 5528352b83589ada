"""The device files of MIG instances, as the simulated driver numbers them."""

from __future__ import annotations


def capability_files(minor: int, place: int) -> tuple[str, str]:
    """The files, below `/dev`, of the GPU instance and of the compute instance.

    `minor` is that of the GPU; `place` counts its instances from 0.
    """
    gpu_instance = 3 + minor * 15 * 9 + 9 * (place + 1)
    return f"nvidia-caps/nvidia-cap{gpu_instance}", f"nvidia-caps/nvidia-cap{gpu_instance + 1}"
