"""GPUs and MIG devices: one directory of the state each."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from fake_nvml.state_files import make_device, make_directory, remove_tree, write_file

DEFAULT_NAME = "NVIDIA H100 80GB HBM3"
DEFAULT_MIG_MEMORY_TOTAL_MB = 9856
DEFAULT_MIG_PROFILE = "1g.10gb"

HEALTH_FIELDS = frozenset(
    {
        "recovery_action",
        "ecc_mode",
        "ecc_corrected_volatile",
        "ecc_uncorrected_volatile",
        "ecc_corrected_aggregate",
        "ecc_uncorrected_aggregate",
        "remap_corrected",
        "remap_uncorrected",
        "remap_pending",
        "remap_failure",
        "retired_pending",
        "compute_mode",
        "persistence_mode",
        "utilization_gpu",
        "utilization_memory",
    }
)

_UUIDS = uuid.UUID("6f1a3e0c-53d1-4f0e-9a57-6b7a1d0c9e11")


@dataclass(frozen=True, slots=True)
class FakeDevice:
    """A GPU or a MIG device: one directory of the state."""

    path: Path
    label: str
    """How `gpu=` of an injection names it: "2", or "2/0" for MIG device 0 of GPU 2."""

    @property
    def uuid(self) -> str:
        return (self.path / "uuid").read_text().strip()

    def text(self, field: str, default: int | str) -> str:
        """The text of one of the device's files."""
        path = self.path / field
        return path.read_text().strip() if path.exists() else str(default)

    def set(self, field: str, value: int | str | None) -> None:
        """Write one file of the device, garbage included; None removes it."""
        write_file(self.path / field, None if value is None else f"{value}\n")

    def set_raw_name(self, name: bytes | None) -> None:
        """Give the device a name of any bytes; None ends that."""
        if name is None:
            self.set("name_raw", None)
        else:
            (self.path / "name_raw").write_bytes(name)

    def set_memory(
        self,
        *,
        total_mb: int | None = None,
        used_mb: int | None = None,
        reserved_mb: int | None = None,
    ) -> None:
        """Change what is given. `used_mb` is the driver's own part, processes come on top."""
        given = {"total": total_mb, "used": used_mb, "reserved": reserved_mb}
        for part, value in given.items():
            if value is not None:
                self.set(f"memory_{part}_mb", value)

    def override_used(self, used_mb: int | None) -> None:
        """Fix the used memory whatever the processes hold; None ends that."""
        self.set("memory_used_override_mb", used_mb)

    def set_memory_supported(self, supported: bool) -> None:
        """False makes it a GPU with unified memory, for which NVML gives no amounts."""
        self.set("memory_unsupported", None if supported else "")

    def add_process(
        self,
        pid: int,
        memory_mb: int | None,
        *,
        kind: str = "C",
        start: int | None = None,
        ghost: bool = False,
    ) -> None:
        """Announce a process; None as memory is unknown, `ghost` lists it even when it is gone."""
        lines = [f"memory_mb={'n/a' if memory_mb is None else memory_mb}", f"type={kind}"]
        lines += [] if start is None else [f"start={start}"]
        lines += ["ghost=1"] if ghost else []
        write_file(self.path / "processes" / str(pid), "\n".join(lines) + "\n")

    def remove_process(self, pid: int) -> None:
        write_file(self.path / "processes" / str(pid), None)

    def clear_processes(self) -> None:
        """Forget every announcement. The processes themselves go on."""
        for announced in (self.path / "processes").iterdir():
            announced.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class FakeGpu(FakeDevice):
    """A whole GPU."""

    node: str
    index: int
    """The name of its directory: its NVML index as long as no GPU before it is removed."""

    def set_health(self, **fields: int | str | None) -> None:
        """Change health fields: a number, "n/a" for not supported, None for the default."""
        unknown = fields.keys() - HEALTH_FIELDS
        if unknown:
            raise TypeError(f"no such health field: {', '.join(sorted(unknown))}")
        for field, value in fields.items():
            self.set(field, value)

    def account(
        self,
        pid: int,
        *,
        busy_percent: int,
        peak_mb: int,
        started_at: float,
        ran_s: float | None,
    ) -> None:
        """Give what the driver's accounting keeps of a process; it runs where `ran_s` is None."""
        lines = (
            f"gpu_utilization={busy_percent}",
            f"max_memory_mb={peak_mb}",
            f"start_us={int(started_at * 1e6)}",
            f"time_ms={int((ran_s or 0.0) * 1000)}",
            f"running={int(ran_s is None)}",
        )
        (self.path / "accounting").mkdir(exist_ok=True)
        write_file(self.path / "accounting" / str(pid), "\n".join(lines) + "\n")

    def add_mig(
        self,
        index: int,
        *,
        memory_total_mb: int = DEFAULT_MIG_MEMORY_TOTAL_MB,
        uuid: str | None = None,
        profile: str = DEFAULT_MIG_PROFILE,
        gpu_instance_id: int | None = None,
        compute_instance_id: int = 0,
    ) -> FakeDevice:
        """Add a MIG device; the first one turns MIG mode on."""
        fields: dict[str, int | str] = {
            "uuid": uuid or make_uuid("MIG", f"{self.node}/{self.index}/{index}"),
            "memory_total_mb": memory_total_mb,
            "name": f"{self.text('name', DEFAULT_NAME)} MIG {profile}",
            "gpu_instance_id": index + 1 if gpu_instance_id is None else gpu_instance_id,
            "compute_instance_id": compute_instance_id,
        }
        make_directory(self.path / "mig")
        make_device(self.path / "mig" / str(index), fields)
        return self.mig(index)

    def mig(self, index: int) -> FakeDevice:
        return FakeDevice(path=self.path / "mig" / str(index), label=f"{self.index}/{index}")

    @property
    def migs(self) -> list[FakeDevice]:
        """The MIG devices that are there, in the order of their indices."""
        names = [entry.name for entry in (self.path / "mig").glob("[0-9]*")]
        return [self.mig(index) for index in sorted(map(int, names))]

    def remove_mig(self) -> None:
        """Turn MIG mode off."""
        remove_tree(self.path / "mig")

    def remove(self) -> None:
        """Take the GPU out: open handles become lost, later ones of higher index move up."""
        remove_tree(self.path)


def make_uuid(prefix: str, name: str) -> str:
    """A uuid in NVIDIA's form, always the same for the same name."""
    return f"{prefix}-{uuid.uuid5(_UUIDS, name)}"
