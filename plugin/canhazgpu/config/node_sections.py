"""The configuration of a node.

Sections ``store``, ``validation``, ``node``, ``agent`` and ``metrics``.
"""

from __future__ import annotations

from canhazgpu.config.key import (
    absolute_path,
    absolute_path_or_empty,
    account_list,
    at_least,
    key,
    one_of,
    positive_seconds,
    store_prefix,
    store_url,
    subset_of,
    word_list,
)
from canhazgpu.frozen_dataclass import dataclass

DEFAULT_STORE_URL = "redis://127.0.0.1:6379/0"
DEFAULT_STORE_PREFIX = "canhazgpu"
DEFAULT_STORE_TIMEOUT_S = 2.0
DEFAULT_EMBEDDED_DIR = "/var/lib/canhazgpu/store"
DEFAULT_HISTORY_DAYS = 90
DEFAULT_HISTORY_MAX_MB = 4
DEFAULT_RETRY_AFTER_S = 15.0
DEFAULT_MEMORY_THRESHOLD_MB = 1024
DEFAULT_SCAN_TIMEOUT_S = 10.0
DEFAULT_STATE_DIR = "/run/canhazgpu"
DEFAULT_MARKER_DIR = "/var/lib/canhazgpu/served"
DEFAULT_MAX_HOOKS = 64
DEFAULT_MAX_REQUESTS = 32
DEFAULT_MAX_REQUESTS_PER_USER = 8
DEFAULT_MAX_WAITERS_PER_USER = 128
DEFAULT_DRIVER_IDLE_S = 5.0

HEALTH_CHECKS = ("recovery_action", "remap", "retirement", "ecc", "compute_mode")
"""The health checks that can quarantine a GPU; see `canhazgpu.gpu.health`."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Section ``store``: where the ledger is."""

    url: str = key(
        DEFAULT_STORE_URL,
        'redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL, or "embedded"',
        check=store_url,
        secret=True,
    )
    prefix: str = key(
        DEFAULT_STORE_PREFIX,
        "beginning of all keys in the store; another one for each cluster that shares a store",
        check=store_prefix,
    )
    login_file: str = key(
        "",
        "absolute path of a file with USER:PASSWORD, in place of those in store.url; users who may"
        " not read it use those in store.url",
        check=absolute_path_or_empty,
    )
    timeout_s: float = key(
        DEFAULT_STORE_TIMEOUT_S, "longest wait for one connection or answer", check=positive_seconds
    )
    embedded_dir: str = key(
        DEFAULT_EMBEDDED_DIR,
        'where the server of store.url = "embedded" keeps its data and socket',
        check=absolute_path,
    )
    history_days: int = key(
        DEFAULT_HISTORY_DAYS, "days for which the history is kept", check=at_least(1)
    )
    history_max_mb: int = key(
        DEFAULT_HISTORY_MAX_MB,
        "room of one node's history in the store (MB); beyond it the oldest part goes, or the part"
        " that was written fastest",
        check=at_least(1),
    )
    on_failure: str = key(
        "local",
        "what Slurm's hooks do while the store is away: local (decide from the node's own records,"
        " and send the changes to the store later) or fail (jobs do not start)",
        check=one_of("local", "fail"),
    )
    retry_after_s: float = key(
        DEFAULT_RETRY_AFTER_S,
        "time for which Slurm's hooks wait only 0.25 s for a store that did not answer",
        check=positive_seconds,
    )


@dataclass(frozen=True, slots=True)
class ValidationConfig:
    """Section ``validation``: how GPUs are scanned and judged."""

    memory_threshold_mb: int = key(
        DEFAULT_MEMORY_THRESHOLD_MB,
        "a GPU with more used memory than this is in use (MB as nvidia-smi counts them)",
        check=at_least(0),
    )
    ignore_processes: tuple[str, ...] = key(
        (),
        "names of processes that do not count as use: Xorg, or root:Xorg for those of one user",
        check=word_list,
    )
    ignore_users: tuple[str, ...] = key(
        (), "users whose processes do not count as use", check=word_list
    )
    probe: str = key(
        "auto",
        "what reads the GPUs: nvml, nvidia-smi, or auto (nvidia-smi where NVML cannot be used)",
        check=one_of("auto", "nvml", "nvidia-smi"),
    )
    nvidia_smi: str = key(
        "",
        "absolute path of nvidia-smi; empty: the usual places",
        check=absolute_path_or_empty,
    )
    expected_gpus: int = key(
        0,
        "number of GPUs that this node should have; 0: the scheduler's count, if there is one",
        check=at_least(0),
    )
    health_checks: tuple[str, ...] = key(
        HEALTH_CHECKS,
        "the health checks that quarantine a GPU: any of " + ", ".join(HEALTH_CHECKS),
        check=subset_of(*HEALTH_CHECKS),
    )
    nvml_library: str = key(
        "",
        "absolute path of libnvidia-ml.so.1; empty: the dynamic loader finds it",
        check=absolute_path_or_empty,
    )
    accounting: str = key(
        "off",
        "what jobs and runs made of their GPUs: auto (the health check switches the driver's"
        " accounting on, and it is read at their end) or off",
        check=one_of("auto", "off"),
    )
    scan_timeout_s: float = key(
        DEFAULT_SCAN_TIMEOUT_S, "longest time that one scan may take", check=positive_seconds
    )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Section ``node``: the node's name and directory."""

    name: str = key(
        "", "the node's name; empty: SLURMD_NODENAME where it is set, else the short hostname"
    )
    state_dir: str = key(
        DEFAULT_STATE_DIR,
        "directory of the node's own records, empty after a reboot; %n stands for the node's name",
        check=absolute_path,
    )
    marker_dir: str = key(
        DEFAULT_MARKER_DIR,
        "directory, in another file system than state_dir, for what outlasts a reboot: the mark of"
        " the boot in which the node served last, which tells records that were lost from records"
        " that were never there; and people's reservations and quarantines",
        check=absolute_path,
    )


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Section ``agent``: what the node's agent serves at once, and who may what through it.

    The lists of accounts and `max_waiters_per_user` are read for each request, the others when the
    agent starts.
    """

    role: str = key(
        "node",
        "node (it answers Slurm's hooks and people, and decides about this node's GPUs) or reader"
        " (on a login host: it answers people about all nodes, and gives nodes their orders)",
        check=one_of("node", "reader"),
    )
    orders: str = key(
        "look",
        "how the agent takes what others order of this node: look (every 2 s, less often in a"
        " cluster of more than 1,000 nodes; it keeps no connection to the store), await (at once;"
        " it keeps one) or check (with the next health check)",
        check=one_of("look", "await", "check"),
    )
    max_hooks: int = key(
        DEFAULT_MAX_HOOKS,
        "hooks that the agent serves at once; more wait, then do their work themselves",
        check=at_least(1),
    )
    max_requests: int = key(
        DEFAULT_MAX_REQUESTS,
        "requests of people that the agent serves at once; beyond them each user has one, and then"
        " more wait",
        check=at_least(1),
    )
    max_requests_per_user: int = key(
        DEFAULT_MAX_REQUESTS_PER_USER,
        "requests of one user that the agent serves at once; more are refused",
        check=at_least(1),
    )
    max_waiters_per_user: int = key(
        DEFAULT_MAX_WAITERS_PER_USER,
        "requests of one user that wait in this node's queue at once; more are refused",
        check=at_least(1),
    )
    users: tuple[str, ...] = key(
        (),
        "who may get GPUs with run and reserve: users, and groups as @group; empty: everybody",
        check=account_list,
    )
    operators: tuple[str, ...] = key(
        (),
        "who may do what canhazgpu admin does, beside root: users, and groups as @group",
        check=account_list,
    )
    driver_idle_s: float = key(
        DEFAULT_DRIVER_IDLE_S,
        "time for which the agent keeps the driver open after a scan; that blocks a GPU's reset",
        check=positive_seconds,
    )


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Section ``metrics``: what is written for programs that watch the node."""

    textfile: str = key(
        "",
        "absolute path of the file with the node's metrics, in the directory of node_exporter's"
        " textfile collector; empty: none is written",
        check=absolute_path_or_empty,
    )
    dcgm_mapping_dir: str = key(
        "",
        "directory of dcgm-exporter's job mapping (its --hpc-job-mapping-dir), where each GPU's"
        " file names its jobs; empty: none is written",
        check=absolute_path_or_empty,
    )
    publish: str = key(
        "off",
        "what the node puts into the store once a minute, or at each health check, for /metrics of"
        " the page: counters or off",
        check=one_of("counters", "off"),
    )

    @property
    def publishes_counters(self) -> bool:
        """Whether the node's counters are put into the store."""
        return self.publish == "counters"
