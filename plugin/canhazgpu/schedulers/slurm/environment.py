"""The names of Slurm's environment variables.

Imports nothing: the prolog of a job without GPUs reads no other module.
"""

JOB_ID = "SLURM_JOB_ID"
JOB_GPUS = "SLURM_JOB_GPUS"
JOB_USER = "SLURM_JOB_USER"
JOB_UID = "SLURM_JOB_UID"
JOB_NAME = "SLURM_JOB_NAME"
JOB_PARTITION = "SLURM_JOB_PARTITION"
JOB_NODES = "SLURM_JOB_NODELIST"
JOB_NODES_OLD = "SLURM_NODELIST"
"""The job's nodes, as Slurm abbreviates them; the first releases that tell a prolog say it so."""
JOB_COMMENT = "SLURM_JOB_COMMENT"
JOB_START_TIME = "SLURM_JOB_START_TIME"
JOB_END_TIME = "SLURM_JOB_END_TIME"
MPS_PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
"""The part of a GPU's threads, in per cent, that Slurm gives a job with ``--gres=mps``.

slurmd sets it for the prolog and the epilog of such a job, and nothing like it for ``shard``."""
RESTART_COUNT = "SLURM_JOB_RESTART_COUNT"
JOB_SLUID = "SLURM_JOB_SLUID"
"""One run of one job, from 25.11 on: a requeued job gets another. An epilog has its own run's."""
CLUSTER_NAME = "SLURM_CLUSTER_NAME"
NODE_NAME = "SLURMD_NODENAME"
SCRIPT_CONTEXT = "SLURM_SCRIPT_CONTEXT"
"""Which hook runs. slurmd sets it; a hook that is run by hand does not have it."""
SLURM_CONF = "SLURM_CONF"
DEFAULT_CONF = "/etc/slurm/slurm.conf"
CONFIGLESS_CONF = "/run/slurm/conf/slurm.conf"
"""Where a configless slurmd keeps the file that its controller sent.

Slurm's programs find this file and `DEFAULT_CONF` without SLURM_CONF."""

HOOK_BEGAN_S = "HOOK_BEGAN_S"
"""When the hook's script began, in seconds since the node's boot, as ``/proc/uptime`` has them."""
HOOK_RUN = "HOOK_RUN"
"""What tells one run of a hook's script from others on this node: its second try has it too."""

KILLED_RUN_S = "HOOK_LOST_S"
"""How many seconds the killed run of this hook took. The hook's script sets it for the retry."""

SCHEDULER_TYPE = "slurm"
"""The text of the TYPE column for a job of this scheduler."""
