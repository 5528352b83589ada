"""Simulated GPUs for tests: builds the fake NVML library and changes the state that it reads.

README.md says what each file of the state means. Every change is one rename, so no reader ever
sees half of it. Amounts of memory are in MiB.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).resolve().parent
PROGRAMS = ("gpu-process", "nvidia-smi")
DEFAULT_NAME = "NVIDIA H100 80GB HBM3"
DEFAULT_MEMORY_TOTAL_MB = 81559
DEFAULT_MIG_MEMORY_TOTAL_MB = 9856
DEFAULT_MIG_PROFILE = "1g.10gb"
FIRST_MIG_MINOR = 3
"""The N of nvidia-capN for GPU instance 0 of GPU 0; 1 and 2 are not instances'."""
GPU_INSTANCES, COMPUTE_INSTANCES = 15, 8
"""How many of each the driver has device files for: of a GPU, and of a GPU instance."""

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


def build(out_dir: str | Path, *, old: bool = False) -> Path:
    """Compile the library into a directory and return its absolute path.

    `old` leaves out the calls that an old driver lacks. Raises CalledProcessError with make's
    output when it does not compile.
    """
    out = Path(out_dir).resolve()
    variant = ["OLD=1"] if old else []
    subprocess.run(
        ["make", "-s", "-C", str(HERE), f"OUT={out}", *variant],  # noqa: S607 - from PATH
        check=True,
        capture_output=True,
        text=True,
    )
    return out / "libnvidia-ml.so.1"


def install(out_dir: str | Path, *, old: bool = False) -> Path:
    """Build the library and put the two programs beside it, usable by every user who gets there."""
    library = build(out_dir, old=old)
    for program in PROGRAMS:
        target = library.parent / program
        shutil.copyfile(HERE / program, target)
        target.chmod(0o755)
    return library


def start_time(pid: int) -> int:
    """When a process started: field 22 of /proc/PID/stat, in clock ticks since boot."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


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
        _write(self.path / field, None if value is None else f"{value}\n")

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
        _write(self.path / "processes" / str(pid), "\n".join(lines) + "\n")

    def remove_process(self, pid: int) -> None:
        _write(self.path / "processes" / str(pid), None)

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
        _make_directory(self.path / "mig")
        _make_device(self.path / "mig" / str(index), fields)
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
        _remove_tree(self.path / "mig")

    def remove(self) -> None:
        """Take the GPU out: open handles become lost, later ones of higher index move up."""
        _remove_tree(self.path)


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
        _make_device(self.path / "gpus" / str(index), fields)
        return self.gpu(index)

    def set(self, field: str, value: int | str | None) -> None:
        """Write one file of the node, such as driver_version; None removes it."""
        _write(self.path / field, None if value is None else f"{value}\n")

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
        _make_directory(self.path / "inject")
        lines = [f"{key}={value}\n" for key, value in fields.items() if value is not None]
        _write(self.path / "inject" / function, "".join(lines))

    def write_driver_proc(self, directory: Path) -> Path:
        """Write what the driver has as /proc/driver/nvidia/gpus into a directory, for all GPUs."""
        for index, gpu in enumerate(self.gpus):
            bus_id = gpu.text("pci_bus_id", f"00000000:{0x10 + gpu.index:02X}:00.0")
            number = gpu.text("minor", index)
            domain, _, rest = bus_id.lower().partition(":")
            one = directory / f"{domain[-4:]}:{rest}"
            one.mkdir(parents=True, exist_ok=True)
            text = f"GPU UUID: \t {gpu.uuid}\nDevice Minor: \t {number}\n"
            (one / "information").write_text(text)
        return directory

    def write_mig_proc(self, directory: Path) -> Path:
        """Write what the driver has below /proc/driver for MIG: ``mig-minors``, ``capabilities``.

        What an earlier call wrote there is replaced: instances come and go.
        """
        table = ["config 1", "monitor 2"]
        for minor in sorted(map(_minor, self.gpus)):
            table += [
                f"gpu{minor}/{name}/access {number}"
                for gi in range(GPU_INSTANCES)
                for name, number in _capabilities(minor, gi).items()
            ]
        caps, shown = directory / "nvidia-caps", directory / "nvidia" / "capabilities"
        caps.mkdir(parents=True, exist_ok=True)
        (caps / "mig-minors").write_text("\n".join(table) + "\n")
        shutil.rmtree(shown, ignore_errors=True)
        shown.mkdir(parents=True)
        for gpu in self.gpus:
            for mig in gpu.migs:
                mig_directory = shown / f"gpu{_minor(gpu)}" / "mig"
                gi, ci = (int(mig.text(f"{kind}_instance_id", 0)) for kind in ("gpu", "compute"))
                capabilities = _capabilities(_minor(gpu), gi)
                for name in (f"gi{gi}", f"gi{gi}/ci{ci}"):
                    access = mig_directory / name / "access"
                    access.parent.mkdir(parents=True, exist_ok=True)
                    access.write_text(
                        f"DeviceFileMinor: {capabilities[name]}\nDeviceFileMode: 438\n"
                        "DeviceFileModify: 1\n"
                    )
        return directory

    def clear_injections(self, function: str | None = None) -> None:
        """End the faults of one function, or all of them."""
        if function is not None:
            _write(self.path / "inject" / function, None)
        else:
            _remove_tree(self.path / "inject")


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
        _make_directory(added.path)
        _make_directory(added.path / "gpus")
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
        _write(self.root / "default-node", None if name is None else f"{name}\n")

    def env(self, node: str | None = None) -> dict[str, str]:
        """The variables that make library and programs use this state, and this node."""
        named = {} if node is None else {"FAKE_NVML_NODE": node}
        return {"FAKE_NVML_STATE": str(self.root), **named}


class Process:
    """A real process that holds memory on simulated GPUs until it ends; a context manager."""

    __slots__ = ("_popen", "start")

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.start = start_time(popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def occupy(self, gpu: FakeDevice, memory_mb: int | None, *, kind: str = "C") -> None:
        """Announce the process on one more device."""
        gpu.add_process(self.pid, memory_mb, kind=kind, start=self.start)

    def kill(self, signal_number: int = signal.SIGKILL) -> int:
        """End the process, wait for it and return its exit status as Popen gives it."""
        if self.alive:
            self._popen.send_signal(signal_number)
        return self.wait(timeout_s=10)

    def wait(self, timeout_s: float | None = None) -> int:
        return self._popen.wait(timeout_s)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def start_gpu_process(
    gpu: FakeDevice,
    memory_mb: int | None,
    user: str | int | None = None,
    name: str = "python3",
    seconds: float | None = None,
    *,
    kind: str = "C",
) -> Process:
    """Start a real process that appears on the GPU and is gone from it when it ends.

    `user` needs root. `name` is what ps shows. Without `seconds` it stays until it is killed, at
    the latest when this interpreter exits.
    """
    # A directory given as cwd need not be reachable for the user, so a private one will do.
    programs = gpu.path.parents[_depth(gpu)] / ".programs"
    _make_directory(programs)
    command = Path(name).name
    with contextlib.suppress(FileExistsError):
        (programs / command).symlink_to(shutil.which("sleep", path="/usr/bin:/bin") or "/bin/sleep")
    account = None if user is None else _account(user)
    popen = subprocess.Popen(
        [name, "infinity" if seconds is None else str(seconds)],
        executable=f"./{command}",
        cwd=programs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
    )
    process = Process(popen)
    atexit.register(_end, popen)
    process.occupy(gpu, memory_mb, kind=kind)
    return process


def _minor(gpu: FakeGpu) -> int:
    return int(gpu.text("minor", gpu.index))


def _capabilities(gpu: int, gpu_instance: int) -> dict[str, int]:
    """The capabilities of a GPU instance and of its compute instances, with their minor numbers."""
    per_gpu = GPU_INSTANCES * (1 + COMPUTE_INSTANCES)
    first = FIRST_MIG_MINOR + gpu * per_gpu + gpu_instance * (1 + COMPUTE_INSTANCES)
    own = {f"gi{gpu_instance}": first}
    return own | {f"gi{gpu_instance}/ci{ci}": first + 1 + ci for ci in range(COMPUTE_INSTANCES)}


def make_uuid(prefix: str, name: str) -> str:
    """A uuid in NVIDIA's form, always the same for the same name."""
    return f"{prefix}-{uuid.uuid5(_UUIDS, name)}"


def _depth(gpu: FakeDevice) -> int:
    """How many directories below the state's root a device lies, less one."""
    return 4 if "/" in gpu.label else 2


def _account(user: str | int) -> pwd.struct_passwd:
    return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)


def _end(popen: subprocess.Popen[bytes]) -> None:
    if popen.poll() is None:
        popen.kill()
        popen.wait()


def _labels(gpu: FakeDevice | int | str | Sequence[FakeDevice | int | str]) -> str:
    devices = [gpu] if isinstance(gpu, FakeDevice | int | str) else gpu
    return ",".join(
        device.label if isinstance(device, FakeDevice) else str(device) for device in devices
    )


def _make_directory(path: Path, mode: int = 0o755) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def _make_device(path: Path, fields: Mapping[str, int | str]) -> None:
    with _new_directory(path) as new:
        for field, value in fields.items():
            _write(new / field, f"{value}\n")
        _make_directory(new / "processes", 0o1777)


@contextlib.contextmanager
def _new_directory(path: Path) -> Iterator[Path]:
    """A directory under another name, which appears under its own when it is complete."""
    hidden = path.with_name(f".{path.name}.new")
    _make_directory(hidden)
    yield hidden
    hidden.rename(path)


def _write(path: Path, text: str | None) -> None:
    """Replace a file at once, or remove it. Readers skip names that begin with a dot."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    hidden = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    hidden.write_text(text)
    hidden.chmod(0o644)
    hidden.rename(path)


def _remove_tree(path: Path) -> None:
    """Take a directory away at once, then delete it."""
    if path.exists():
        hidden = path.with_name(f".{path.name}.old.{uuid.uuid4().hex[:8]}")
        path.rename(hidden)
        shutil.rmtree(hidden)
