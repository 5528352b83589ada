"""The line of ``gres.conf`` that gives Slurm a GPU or a MIG instance; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from canhazgpu.gpu.scan import GpuReading


def gres_lines_advice(node: str, gpus: Sequence[GpuReading], known: Collection[str] = ()) -> str:
    """Return what to write for the GPUs, apart from the `known` ones (UUIDs).

    MIG instances need a line each; the text has that of the first.
    """
    instances = [gpu for gpu in gpus if gpu.is_mig_instance]
    missing = [gpu for gpu in instances if gpu.uuid not in known]
    if not instances:
        return f"Gres=gpu:{len(gpus)} for {node}"
    example = mig_gres_line(node, (missing or instances)[0])
    return f"for each instance a line as '{example}' in gres.conf, and their number in Gres="


def mig_gres_line(node: str, instance: GpuReading) -> str:
    """Return the line for a MIG instance, with N for each number that is not known."""
    numbers = instance.mig_devices
    gpu, *capabilities = (
        "N" if number is None else str(number)
        for number in (
            (numbers.gpu, numbers.gpu_instance, numbers.compute_instance)
            if numbers
            else (None, None, None)
        )
    )
    files = [f"/dev/nvidia{gpu}", *(f"/dev/nvidia-caps/nvidia-cap{one}" for one in capabilities)]
    kind = f" Type={instance.mig_profile}" if instance.mig_profile else ""
    return f"NodeName={node} Name=gpu{kind} MultipleFiles={','.join(files)}"
