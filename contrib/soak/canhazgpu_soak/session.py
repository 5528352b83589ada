"""One soak from its first fault to its verdict."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from canhazgpu_soak.agents import AgentSupervisor
from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.evidence import Evidence, Finding, Promises
from canhazgpu_soak.faults.injection import Faults, Maker
from canhazgpu_soak.faults.node_faults import NodeFaults
from canhazgpu_soak.faults.plan import HOGS, STORE, TAMPERED, Fault, plan_faults
from canhazgpu_soak.faults.process_faults import ProcessFaults
from canhazgpu_soak.judge import judge
from canhazgpu_soak.late_releases import by_the_stores_clock
from canhazgpu_soak.load.commands import Commands
from canhazgpu_soak.load.rogues import MEAN_PAUSE_S, Rogues
from canhazgpu_soak.load.workload import User
from canhazgpu_soak.logs import keep_files, log_tracebacks
from canhazgpu_soak.lost_launches import LONGEST_PROLOG_S, lost_launches
from canhazgpu_soak.observer import Observer
from canhazgpu_soak.records import AVAILABLE, parse_hook_runs, parse_looks, read_holders
from canhazgpu_soak.report import (
    DRAINED,
    HUNG_JOB,
    NOT_FREE,
    Outcome,
)
from canhazgpu_soak.stores.port import PUT_BACK, Struck

JOBS_END_S = 180.0
"""By then all jobs have ended: the longest ones run over their limit of a minute."""
SETTLE_S = 120.0
POLL_S = 1.0
FIND_EVERY_S = 2.0


class Session:
    """Threads for users, faults and observers; errors in any of them end the soak."""

    def __init__(
        self,
        cluster: SoakCluster,
        seed: str,
        length_s: float,
        hogs: int,
        *,
        only: Collection[str] | None = None,
        starved: bool = False,
        rogue_pause_s: float = MEAN_PAUSE_S,
    ) -> None:
        self._cluster = cluster
        self._seed = seed
        self._length_s = length_s
        self._commands = Commands(cluster)
        self._only = only
        self._starved = starved
        agents_killed: set[int] = set()
        self._of_processes = ProcessFaults(cluster, self._commands.live, agents_killed)
        self._of_nodes = NodeFaults(cluster, hogs, agents_killed)
        self._agents = AgentSupervisor(cluster, agents_killed)
        self._faults = self._all_faults()
        self._observer = Observer(cluster)
        self._rogues = Rogues(seed, cluster, rogue_pause_s)
        self._users: list[User] = []
        self._errors: list[Exception] = []
        self._lost: list[str] = []
        self._put_backs: list[float] = []
        self._threads: list[threading.Thread] = []
        self._load_ends = threading.Event()
        self._all_ends = threading.Event()

    def run(self, until_found: str | None = None) -> Outcome:
        """Soak, let everything come to rest, and judge.

        As soon as a violation of the kind `until_found` is seen, it judges and ends.
        """
        cluster = self._cluster
        self._users = [User(name, self._seed, cluster, self._commands) for name in cluster.users]
        kinds = self._faults.kinds - {TAMPERED} if self._only is None else self._only
        plan = plan_faults(self._seed, self._length_s, cluster.nodes, kinds, starved=self._starved)
        load = [one.live for one in self._users] + [self._rogues.live]
        load.append(lambda stop: self._faults.run(plan, stop))
        observers = [self._observer.administer]
        if cluster.has_hooks:
            observers += [self._observer.ask, self._agents.supervise]
        try:
            watching = [self._start(one, self._all_ends) for one in observers]
            loading = [self._start(one, self._load_ends) for one in load]
            is_found = self._load(loading, until_found)
            self._load_ends.set()
            findings = []
            if not is_found:
                self._wait(loading, float("inf"))
                findings = self._come_to_rest()
            self._all_ends.set()
            self._wait(watching, float("inf"))
        finally:
            self._load_ends.set()
            self._all_ends.set()
            self._commands.end()
            # Nothing is to be started any more where everything is about to be ended.
            for one in self._threads:
                one.join()
        return self._outcome(findings)

    def _load(self, loading: list[threading.Thread], until_found: str | None) -> bool:
        """Let the load go on for its time; return whether it ended because of what was found."""
        if until_found is None:
            self._wait(loading, self._length_s)
            return False
        ends_at = time.monotonic() + self._length_s
        while (left_s := ends_at - time.monotonic()) > 0:
            self._wait(loading, min(left_s, FIND_EVERY_S))
            if until_found in {one.kind for one in judge(self._evidence(), Promises())}:
                return True
        return False

    def _all_faults(self) -> Faults:
        of_store: dict[str, Maker] = {
            kind: lambda _fault, make=make: make()  # type: ignore[misc]
            for kind, make in self._cluster.store.faults.items()
        }
        of_store[PUT_BACK] = self._put_back
        makers = {**self._of_processes.makers(), **self._of_nodes.makers()}
        slow = {**self._of_nodes.slow_makers(), **of_store}
        if not self._cluster.has_hooks:
            slow = {kind: make for kind, make in slow.items() if not kind.startswith(STORE)}
            return Faults(self._cluster, {HOGS: makers[HOGS]}, slow)
        return Faults(self._cluster, makers, slow)

    def _put_back(self, _fault: Fault) -> Struck:
        began = now()
        struck = self._cluster.store.faults[PUT_BACK]()
        if struck is not None:
            self._put_backs.append(began)
        return struck

    def _start(
        self, act: Callable[[threading.Event], object], stop: threading.Event
    ) -> threading.Thread:
        def guarded() -> None:
            try:
                act(stop)
            except Exception as exc:
                self._errors.append(exc)  # the main thread raises it

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()
        return thread

    def _wait(self, threads: list[threading.Thread], limit_s: float) -> None:
        """Wait until all have ended, or the time is over; raise what one of them raised."""
        ends_at = time.monotonic() + limit_s
        while any(one.is_alive() for one in threads) and time.monotonic() < ends_at:
            time.sleep(0.2)
            if self._errors:
                raise RuntimeError(f"a part of it ended: {self._errors[0]!r}") from self._errors[0]

    def _come_to_rest(self) -> list[Finding]:
        """Let all jobs end; return which did not, and what is still held, or not free, then."""
        self._cancel("PENDING")
        lost_since = now() + LONGEST_PROLOG_S
        self._until(
            lambda: not self._hanging() if now() > lost_since else not self._observer.jobs(),
            JOBS_END_S,
            lambda: self._cancel("PENDING"),
        )
        hung = self._hanging()
        self._cancel("RUNNING")
        self._until(lambda: not self._left(), SETTLE_S)
        at = now()
        return [Finding(HUNG_JOB, at, job) for job in hung] + [
            Finding(NOT_FREE, at, text) for text in self._left()
        ]

    def _hanging(self) -> list[str]:
        """The jobs that Slurm still has, without those that it has lost itself."""
        jobs = self._observer.jobs()
        self._lost = lost_launches(
            jobs, self._evidence(), self._of_nodes.restarts, self._of_nodes.reboots
        )
        return [job for job in jobs if job not in self._lost]

    def _cancel(self, state: str) -> None:
        self._cluster.slurm.run(["scancel", "--state", state, "--partition=main"])

    def _until(
        self, reached: Callable[[], bool], limit_s: float, act: Callable[[], None] | None = None
    ) -> None:
        ends_at = time.monotonic() + limit_s
        while not reached() and time.monotonic() < ends_at:
            if act is not None:
                act()
            time.sleep(POLL_S)

    def _left(self) -> list[str]:
        """What keeps GPUs from being free."""
        left = []
        for node in self._cluster.nodes if self._cluster.has_hooks else ():
            answer = self._observer.status(node)
            if answer is None:
                left.append(f"{node} does not answer")
                continue
            left += [
                f"{node} {gpu.gpu} is {gpu.state} {' '.join(gpu.keys)}"
                for gpu in answer.gpus
                if gpu.state != AVAILABLE
            ]
            left += [f"{node}: {one} waits" for one in self._observer.queue(node)]
        return left

    def _outcome(self, findings: list[Finding]) -> Outcome:
        evidence = self._evidence()
        if self._cluster.has_hooks:
            findings += judge(evidence, Promises())
        findings += [Finding(DRAINED, now(), one) for one in self._observer.drained]
        findings += log_tracebacks(self._cluster)
        findings += self._agents.ended_by_themselves
        jobs: Counter[str] = Counter()
        for user in self._users:
            jobs += user.jobs
        return Outcome(
            self._seed,
            self._length_s,
            evidence,
            sorted(findings, key=lambda one: one.at),
            dict(sorted(self._faults.injected.items())),
            jobs,
            self._commands.statuses,
            self._observer.unanswered,
            len(self._observer.drained_by_slurm),
            len(self._lost),
            self._agents.kept_from_starting,
            missed=dict(sorted(self._faults.missed.items())),
            rogues=self._rogues.kinds,
            has_hooks=self._cluster.has_hooks,
        )

    def _evidence(self) -> Evidence:
        cluster = self._cluster
        tasks = read_holders(cluster.notes, cluster.gpus)
        return Evidence(
            by_the_stores_clock([*tasks, *self._commands.reservations], self._of_nodes.store_steps),
            self._rogues.seen,
            [*parse_hook_runs(cluster.lines("hooks")), *self._observer.running],
            self._commands.requests,
            self._observer.answers,
            parse_looks(cluster.lines("looks")),
            self._put_backs,
            self._of_nodes.downtimes,
        )

    def keep(self, directory: Path) -> None:
        """Copy all logs and records."""
        keep_files(self._cluster, directory)
        texts: dict[str, Sequence[object]] = {
            "faults": self._faults.log,
            "answers": self._observer.answers,
            "unanswered": self._observer.silent,
            "requests": self._commands.requests,
            "rogues": self._rogues.seen,
        }
        for name, lines in texts.items():
            (directory / name).write_text("\n".join(map(str, lines)))
