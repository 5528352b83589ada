"""What manual pages name beside a command's own help: variables, files, and other pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from canhazgpu.config import DEFAULT_CONFIG_FILE
from canhazgpu.config.environment import CONFIG_VARIABLE
from canhazgpu.config.schema import all_keys
from canhazgpu.gpu.ids import GPUS_VARIABLE

Path = tuple[str, ...]
Entries = Sequence[tuple[str, str]]
"""Names, each with its meaning."""

EVERYWHERE: Path = ()

ENVIRONMENT: Mapping[Path, Entries] = {
    EVERYWHERE: (
        (CONFIG_VARIABLE, f"The configuration file, in place of {DEFAULT_CONFIG_FILE}."),
        (
            "CANHAZGPU_SECTION_KEY",
            "A key of the configuration, as CANHAZGPU_STORE_URL for store.url; wins over the file."
            " `canhazgpu config show --json` names the variable of each key.",
        ),
    ),
    ("run",): (
        ("CUDA_VISIBLE_DEVICES", "Set for the command: its GPUs, as run.export says."),
        (GPUS_VARIABLE, "Set for the command: the UUIDs of its GPUs."),
        ("SLURM_JOB_ID", "Inside a job of Slurm's the command gets the job's GPUs."),
    ),
    ("reserve",): (
        ("CUDA_VISIBLE_DEVICES", "What --short prints: the value for programs that use the GPUs."),
    ),
    ("status",): (
        ("NO_COLOR", "Not empty: no colours, unless --color says otherwise."),
        ("TERM", "`dumb`: no colours, and --watch redraws nothing in place."),
    ),
    ("hooks",): (("SLURM_CONF", "slurm.conf, where --slurm-conf does not name it."),),
}
"""By the command or its group; `EVERYWHERE` for every page."""

FILES: Mapping[Path, Entries] = {
    EVERYWHERE: (
        (str(DEFAULT_CONFIG_FILE), "The configuration; `canhazgpu config show` names every key."),
        (
            str(all_keys()["node.state_dir"].default),
            "The node's own records (node.state_dir): its book, its journal and the jobs' records.",
        ),
    ),
    ("hooks",): (
        ("/etc/slurm/slurm.conf", "Slurm's configuration, which is read and never changed."),
        ("/etc/slurm/canhazgpu", "The scripts that Slurm runs, below --slurm-dir."),
    ),
}

SEE_ALSO: Mapping[Path, Sequence[str]] = {
    EVERYWHERE: ("nvidia-smi(1)",),
    ("run",): ("srun(1)",),
    ("reserve",): ("salloc(1)",),
    ("explain",): ("sacct(1)", "scontrol(1)"),
    ("hooks",): ("slurm.conf(5)", "gres.conf(5)"),
}


def entries_for(table: Mapping[Path, Entries], path: Path) -> Entries:
    """Return what is about the command itself and about its groups first, then the general."""
    return [one for length in range(len(path), -1, -1) for one in table.get(path[:length], ())]


def other_pages(path: Path) -> Sequence[str]:
    """Return the pages of other programs, as ``srun(1)``."""
    return [one for length in range(len(path), -1, -1) for one in SEE_ALSO.get(path[:length], ())]
