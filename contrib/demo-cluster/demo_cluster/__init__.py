"""Boot a private Slurm of several nodes on one host, in one directory, without a GPU."""

from demo_cluster.client import SlurmClient
from demo_cluster.cluster import PrivateSlurm
from demo_cluster.errors import CommandFailed, DemoClusterError, StartError, WaitTimeout
from demo_cluster.host.requirements import missing_requirements
from demo_cluster.host.users import ensure_users, remove_users
from demo_cluster.layout import Layout, new_directory
from demo_cluster.leftovers import find_leftovers
from demo_cluster.scontrol import FINAL_STATES
from demo_cluster.spec import ClusterSpec, NodeSpec

__all__ = [
    "FINAL_STATES",
    "ClusterSpec",
    "CommandFailed",
    "DemoClusterError",
    "Layout",
    "NodeSpec",
    "PrivateSlurm",
    "SlurmClient",
    "StartError",
    "WaitTimeout",
    "ensure_users",
    "find_leftovers",
    "missing_requirements",
    "new_directory",
    "remove_users",
]
