"""The checks of the store; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.ledger.store.messages.redis_cli import redis_cli_command
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

MAX_SKEW_S = 1.0
CLIENTS_LIMIT = "256mb"
"""Hundreds of readers need it at once. A share (``5%``) is none where ``maxmemory`` is 0."""
MAX_ANSWER_S = 0.25
"""A hook waits so long for a store that was away, and 2.5 s in all for about four answers."""


CONNECTIONS_OF_A_NODE = 2
"""All who wait for GPUs wait in one, and hooks and looks for orders come and go in another."""
OTHER_CONNECTIONS = 100


def store(site: SiteState) -> Iterator[Problem]:
    """Find a store that hooks cannot reach, or that takes no changes."""
    if fault := site.hook_probe.store_fault:
        step = site.hook_probe.store_step or redis_cli_command(site.config.config.store)
        yield Problem("error", fault, "a store that takes changes", step or "canhazgpu status")


def store_login(site: SiteState) -> Iterator[Problem]:
    """Find a login by which another node could change this node's records."""
    if site.config.shared_login:
        yield Problem(
            "warning",
            site.config.shared_login,
            "a Redis user for each node, a reader for users",
            "canhazgpu store acl: see 'Passwords' in install.md",
        )


def clock(site: SiteState) -> Iterator[Problem]:
    """Find a clock that differs from Redis' clock."""
    skew_s = site.hook_probe.skew_s
    if skew_s is not None and abs(skew_s) - site.hook_probe.skew_error_s > MAX_SKEW_S:
        ahead = "behind" if skew_s > 0 else "ahead of"
        yield Problem(
            "warning",
            f"this node's clock is {abs(skew_s):.1f} s {ahead} the store's",
            f"at most {MAX_SKEW_S:g} s apart",
            "systemctl restart chronyd, on the node or on the store's host",
        )


def store_time(site: SiteState) -> Iterator[Problem]:
    """Find a store that answers so slowly that hooks take it for lost."""
    answer_s = site.hook_probe.answer_s
    if answer_s is not None and answer_s > MAX_ANSWER_S:
        yield Problem(
            "warning",
            f"the store needs {answer_s:.2f} s for an answer: hooks soon decide without it",
            f"at most {MAX_ANSWER_S:g} s",
            redis_cli_command(site.config.config.store, "--latency")
            or f"a faster disk for {site.config.config.store.embedded_dir}",
        )


def store_clients(site: SiteState) -> Iterator[Problem]:
    """Find a store whose readers can fill its memory, so that it takes no changes or is ended."""
    if site.hook_probe.clients_mb == 0:
        command = redis_cli_command(
            site.config.config.store, "config", "set", "maxmemory-clients", CLIENTS_LIMIT
        )
        yield Problem(
            "warning",
            "whoever may read the store can fill its memory, with a request that has no end or with"
            " answers that nobody reads: maxmemory-clients is 0",
            f"maxmemory-clients {CLIENTS_LIMIT}",
            f"{command}, and the same in the server's configuration",
        )


def store_connections(site: SiteState) -> Iterator[Problem]:
    """Find a store that takes too few connections for its nodes."""
    nodes = site.hook_probe.known_nodes
    # An agent that waits for orders does so in one more.
    each = CONNECTIONS_OF_A_NODE + (site.config.config.agent.orders == "await")
    needed = each * nodes + OTHER_CONNECTIONS
    limit = site.hook_probe.max_clients
    if limit is not None and limit < needed:
        command = redis_cli_command(
            site.config.config.store, "config", "set", "maxclients", str(needed)
        )
        yield Problem(
            "warning",
            f"the store takes {limit} connections, and has {nodes} nodes: maxclients is {limit}",
            f"maxclients {needed}: {each} a node, and {OTHER_CONNECTIONS} for commands elsewhere",
            f"{command}, and the same in the server's configuration; it needs as many open files",
        )


def store_keeps(site: SiteState) -> Iterator[Problem]:
    """Find a store that may lose reservations."""
    config = site.config.config.store
    if policy := site.hook_probe.evicts:
        command = redis_cli_command(config, "config", "set", "maxmemory-policy", "noeviction")
        yield Problem(
            "warning",
            f"the store evicts reservations when it is full: maxmemory-policy is {policy}",
            "noeviction",
            f"{command}, and the same in the server's configuration",
        )
    if unsaved := site.hook_probe.unsaved:
        yield Problem(
            "warning",
            f"the store could not write its data to its disk ({unsaved})",
            "data that outlive the server",
            "free space on the disk of the store's host; its log has the reason",
        )
