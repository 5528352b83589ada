"""The state that the library reads: the nodes of a simulated cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fake_nvml.devices import DEFAULT_NAME, FakeDevice, FakeGpu, make_uuid
from fake_nvml.driver_proc import write_driver_proc, write_mig_proc
from fake_nvml.state_files import make_device, make_directory, remove_tree, write_file

DEFAULT_MEMORY_TOTAL_MB = 81559


@dataclass(frozen=True, slots=True)
class FakeNode:
    """One simulated node."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def gpu(self, index: int) -> FakeGpu:
        path = self.path / "gpus" / str(index)
        if not path.is_dir():
            raise KeyError(f"node {self.name} has no GPU {index}")
        return FakeGpu(path=path, label=str(index), node=self.name, index=index)

    @property
    def gpus(self) -> list[FakeGpu]:
        """The GPUs that are there, in the order of their NVML indices."""
        names = (entry.name for entry in (self.path / "gpus").iterdir())
        return [self.gpu(index) for index in sorted(int(name) for name in names if name.isdigit())]

    def add_gpu(self, index: int, **fields: int | str) -> FakeGpu:
        """Add a GPU with the given files; a uuid is made when none is given."""
        fields.setdefault("uuid", make_uuid("GPU", f"{self.name}/{index}"))
        make_device(self.path / "gpus" / str(index), fields)
        return self.gpu(index)

    def set(self, field: str, value: int | str | None) -> None:
        """Write one file of the node, such as driver_version; None removes it."""
        write_file(self.path / field, None if value is None else f"{value}\n")

    def inject(  # noqa: PLR0913 - one keyword for each line of the file
        self,
        function: str,
        *,
        return_: int | None = None,
        delay_ms: int | None = None,
        hang: bool = False,
        absent: bool = False,
        stdout: str | None = None,
        lacks: Sequence[str] = (),
        gpu: FakeDevice | int | str | Sequence[FakeDevice | int | str] | None = None,
    ) -> None:
        """Make an NVML function, or the program "nvidia-smi", fail or dawdle from now on.

        A name without _vN stands for all versions of that function. Only nvidia-smi knows `stdout`,
        printed instead of its work, and `lacks`, the fields it refuses as an old one does.
        """
        fields: dict[str, int | str | None] = {
            "return": return_,
            "delay_ms": delay_ms,
            "hang": 1 if hang else None,
            "absent": 1 if absent else None,
            "gpu": None if gpu is None else _labels(gpu),
            "stdout": None if stdout is None else stdout.replace("\n", "\\n"),
            "lacks": ",".join(lacks) or None,
        }
        make_directory(self.path / "inject")
        lines = [f"{key}={value}\n" for key, value in fields.items() if value is not None]
        write_file(self.path / "inject" / function, "".join(lines))

    def write_driver_proc(self, directory: Path) -> Path:
        """Write what the driver has as /proc/driver/nvidia/gpus into a directory, for all GPUs."""
        return write_driver_proc(self.gpus, directory)

    def write_mig_proc(self, directory: Path) -> Path:
        """Write what the driver has below /proc/driver for MIG; see `driver_proc`."""
        return write_mig_proc(self.gpus, directory)

    def clear_injections(self, function: str | None = None) -> None:
        """End the faults of one function, or all of them."""
        if function is not None:
            write_file(self.path / "inject" / function, None)
        else:
            remove_tree(self.path / "inject")


@dataclass(frozen=True, slots=True)
class FakeState:
    """A state directory: the nodes of a simulated cluster."""

    root: Path

    def __init__(self, root: str | Path) -> None:
        object.__setattr__(self, "root", Path(root).resolve())
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)

    def add_node(
        self,
        node: str = "default",
        /,
        gpus: int = 4,
        *,
        name: str = DEFAULT_NAME,
        memory_total_mb: int = DEFAULT_MEMORY_TOTAL_MB,
        minors: Sequence[int] | None = None,
        uuids: Sequence[str] | None = None,
    ) -> FakeNode:
        """Add a node. Without `uuids` they are made, the same each time, from node and index."""
        minors = range(gpus) if minors is None else minors
        if len(minors) != gpus or (uuids is not None and len(uuids) != gpus):
            raise ValueError(f"minors and uuids must have one entry for each of the {gpus} GPUs")
        added = FakeNode(path=self.root / node)
        make_directory(added.path)
        make_directory(added.path / "gpus")
        for index, minor in enumerate(minors):
            fields: dict[str, int | str] = {
                "name": name,
                "memory_total_mb": memory_total_mb,
                "minor": minor,
            }
            if uuids is not None:
                fields["uuid"] = uuids[index]
            added.add_gpu(index, **fields)
        return added

    def node(self, name: str = "default") -> FakeNode:
        if not (self.root / name / "gpus").is_dir():
            raise KeyError(f"no node {name} in {self.root}")
        return FakeNode(path=self.root / name)

    def set_default_node(self, name: str | None) -> None:
        """Which node a process is on whose environment names none."""
        write_file(self.root / "default-node", None if name is None else f"{name}\n")

    def env(self, node: str | None = None) -> dict[str, str]:
        """The variables that make library and programs use this state, and this node."""
        named = {} if node is None else {"FAKE_NVML_NODE": node}
        return {"FAKE_NVML_STATE": str(self.root), **named}


def _labels(gpu: FakeDevice | int | str | Sequence[FakeDevice | int | str]) -> str:
    devices = [gpu] if isinstance(gpu, FakeDevice | int | str) else gpu
    return ",".join(
        device.label if isinstance(device, FakeDevice) else str(device) for device in devices
    )
