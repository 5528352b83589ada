"""The tables of cluster_time.py, a row as soon as it is measured."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_load import LoadResult

SHOWN_US = 100.0
"""Latencies of a command are shown from this p99 on."""


@dataclass(frozen=True)
class CommandCost:
    """What one command cost: seconds, MiB, bytes; `status` is its exit status."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    round_trips: int
    sent: int
    received: int
    status: int


@dataclass(frozen=True)
class Found:
    """What was measured with one number of nodes."""

    nodes: int
    bytes_per_node: float
    is_computed: bool
    bytes_by_key: dict[str, int]
    commands: dict[str, CommandCost]
    load: LoadResult | None


class Tables:
    """Prints what is measured; the first size's CPU times are those that others are "above"."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def memory(
        self, nodes: int, per_node: float, is_computed: bool, by_key: dict[str, int]
    ) -> None:
        """Print what one node's data take."""
        marked = " (computed)" if is_computed else ""
        print(f"\n{nodes} nodes: {per_node / 1e6:.2f} MB a node{marked}; of one node:")
        print("  " + ", ".join(f"{name} {size:,}" for name, size in by_key.items()), flush=True)

    def heading(self) -> None:
        """Print the names of the columns of `command`."""
        print(
            f"  {'command':36} {'CPU s':>7} {'above':>7} {'wall s':>7} {'MiB':>6}"
            f" {'trips':>6} {'sent':>11} {'received':>13}"
        )

    def command(self, name: str, cost: CommandCost) -> None:
        """Print one command's row."""
        above = cost.cpu_s - self._first.setdefault(name, cost.cpu_s)
        failed = f"  exit status {cost.status}" if cost.status else ""
        print(
            f"  {name:36} {cost.cpu_s:7.2f} {above:7.2f} {cost.wall_s:7.2f}"
            f" {cost.peak_mib:6.0f} {cost.round_trips:6} {cost.sent:11,}"
            f" {cost.received:13,}{failed}",
            flush=True,
        )

    def load(self, load: LoadResult) -> None:
        """Print what the load took."""
        sent = ", ".join(f"{count / load.took_s:.1f} {name}/s" for name, count in load.sent.items())
        print(f"  load for {load.took_s:.0f} s: {sent}")
        print(
            f"    server {load.server_share:.0%} of a core,"
            f" generator {load.generator_cpu_s / load.took_s:.0%}"
        )
        for name, values in sorted(load.latencies.items()):
            if values.get("p99", 0.0) < SHOWN_US:
                continue
            text = ", ".join(f"{key} {value / 1000:.2f} ms" for key, value in values.items())
            print(f"    {name:18} {text}", flush=True)


class NoTables(Tables):
    """Prints nothing: the results are printed as JSON at the end."""

    def memory(
        self, nodes: int, per_node: float, is_computed: bool, by_key: dict[str, int]
    ) -> None:
        """Print nothing."""

    def heading(self) -> None:
        """Print nothing."""

    def command(self, name: str, cost: CommandCost) -> None:
        """Print nothing."""

    def load(self, load: LoadResult) -> None:
        """Print nothing."""
