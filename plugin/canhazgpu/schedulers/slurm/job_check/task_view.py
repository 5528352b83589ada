"""What hides the node's files from a job's tasks: private directories, and containers of pyxis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.conf.conf_files import ConfFiles
from canhazgpu.schedulers.slurm.conf.settings import Settings

CONTAINER_KEYS = (("JobContainerType", "job_container"), ("NamespaceType", "namespace"))
"""The key of slurm.conf, until 25.05 and from 25.11 on, and the kind of its plugins."""
DEFAULT_DIRECTORIES = "/tmp,/dev/shm"  # noqa: S108 - job_container.conf(5)
PLUGSTACK = "plugstack.conf"
PYXIS = "spank_pyxis.so"
MAX_FILES = 64


@dataclass(frozen=True, slots=True)
class TaskView:
    """`private` are the directories of which each job has its own.

    `has_pyxis`: tasks may be in a container, which pyxis enters before Slurm runs the task prolog.
    """

    private: tuple[str, ...] = ()
    has_pyxis: bool = False


def read_task_view(conf: Path, settings: Settings) -> TaskView:
    """Return the view by `conf` (slurm.conf) and its settings; raises `ConfigError`, `OSError`."""
    return TaskView(_private_directories(conf, settings), _has_pyxis(conf, settings))


def hides(directories: tuple[str, ...], path: str) -> str:
    """Return the private directory in which the path lies, "" for none."""
    found = (one for one in directories if f"{path}/".startswith(f"{one.rstrip('/')}/"))
    return next(found, "")


def _private_directories(conf: Path, settings: Settings) -> tuple[str, ...]:
    if not any("tmpfs" in settings.plugins(key, kind) for key, kind in CONTAINER_KEYS):
        return ()
    lines = ConfFiles(conf.parent).lines(conf.with_name("job_container.conf"))
    listed = [line.pairs["dirs"] for line in lines if "dirs" in line.pairs]
    words = ",".join(listed or [DEFAULT_DIRECTORIES]).split(",")
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip().startswith("/")))


def _has_pyxis(conf: Path, settings: Settings) -> bool:
    named = settings.get("PlugStackConfig")
    path = Path(named) if named.startswith("/") else conf.with_name(PLUGSTACK)
    return any(PYXIS in line for line in _plugstack_lines(path))


def _plugstack_lines(path: Path) -> Iterator[str]:
    """Yield the lines of the file and of those that it includes, comments apart."""
    left, seen = [path], 0
    while left and seen < MAX_FILES:
        one, seen = left.pop(), seen + 1
        if not one.is_file():
            continue
        for line in one.read_text("utf-8", "replace").splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["include"] and len(words) == 2:
                left.extend(_glob(one.parent, words[1]))
            elif words:
                yield line


def _glob(directory: Path, pattern: str) -> list[Path]:
    absolute = pattern.startswith("/")
    return sorted(Path("/").glob(pattern[1:]) if absolute else directory.glob(pattern))
