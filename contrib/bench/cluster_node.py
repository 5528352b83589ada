"""One node's days, told to a store by the very scripts that its agent runs.

What a job writes is what the agent writes for it: a grant that the store confirms, the prolog's
note, scans, the release, the epilog's note.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading, Scan
from canhazgpu.ledger.journal_entries import EPILOG, PROLOG, RELEASE, JournalEntry, NumberedEntry
from canhazgpu.ledger.port import Observation, UnconfirmedGrant
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.indexes.upkeep import CHECK_EVERY_S
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim, Waiter

GPUS = 8
DAY_S = 86400.0
CLUSTER = "bench"
MODEL = "NVIDIA H100 80GB HBM3"
USERS_OF_A_NODE = 12
HELD_S = 5400.0
"""How long a job has its GPUs: with 50 jobs a day, three or four jobs at a time."""
GPU_COUNTS = (1, 1, 2, 1, 4, 1, 1, 2)
"""GPUs of one job after the other."""
SETTLE_S = 2.0
HEALTH = GpuHealth("none", False, False, None, 0, "default")


@dataclass(frozen=True)
class Job:
    """A job: its number, whose it is, and its GPUs by place."""

    number: int
    user: str
    uid: int
    gpus: tuple[int, ...]

    @property
    def claim(self) -> Claim:
        owner = f"job:{CLUSTER}:{self.number}:0"
        return Claim(
            owner,
            "slurm",
            self.user,
            self.uid,
            str(self.number),
            f"train-{self.number % 40:02}.sh",
            boot_id="b7c84f7e-3f27-4b04-9a4f-6f2a93d0d8a1",
        )


@dataclass
class NodeLife:
    """What happens on one node; `now` returns its time in seconds since the epoch."""

    name: str
    store: StoreConfig
    now: Callable[[], float] = time.time
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**12)))
    jobs: Iterator[int] = field(default_factory=lambda: iter(range(1, 10**12)))

    shared_ledger: RedisLedger | None = None

    def __post_init__(self) -> None:
        self.ledger = self.shared_ledger or RedisLedger(self.store, Role.WRITE)
        self.held: dict[Job, int] = {}
        self._settled = 0

    @property
    def uuids(self) -> list[str]:
        return [f"GPU-{place:08x}-{self._token}-4f21-9c3e-b0a5d1f2c7e8" for place in range(GPUS)]

    @property
    def _token(self) -> str:
        return f"{sum(map(ord, self.name)) % 65536:04x}"

    def free(self) -> list[int]:
        """Return the places of the GPUs that nobody holds."""
        taken = {place for job in self.held for place in job.gpus}
        return [place for place in range(GPUS) if place not in taken]

    def start(
        self,
        user: int,
        count: int,
        number: int | None = None,
        person: tuple[str, int] | None = None,
    ) -> Job | None:
        """Do for a job what its prolog does; None where too few GPUs are free.

        The job is of the bench's user with that number, or of the `person` (name, uid).
        """
        if len(free := self.free()) < count:
            return None
        number = next(self.jobs) if number is None else number
        job = Job(number, *(person or _person(user)), tuple(free[:count]))
        grant = UnconfirmedGrant(
            next(self.numbers), self._settled, job.claim, self._named(job), self.journal
        )
        self.ledger.read_nodes([self.name])
        confirmed = self.ledger.confirm(self.name, grant, self.observation())
        if confirmed.outcome is not None:
            raise RuntimeError(f"the store refused job {number}: {confirmed.outcome}")
        self._settled, self.held[job] = grant.number, grant.number
        self._record(self._note(PROLOG, "granted", job))
        return job

    def end(self, job: Job) -> None:
        """Do for a job what its epilog does."""
        number = self.held.pop(job)
        self.ledger.read_nodes([self.name])
        owner = job.claim.owner
        self._record(JournalEntry(RELEASE, self.now(), owner, (), reason="job ended", grant=number))
        self.check()
        self._record(self._note(EPILOG, "released", job))

    def check(self) -> None:
        """Do what the health check of a node does on which nothing is wrong."""
        self.ledger.read_nodes([self.name])
        self.ledger.publish_scan(
            self.observation(), frozenset(job.claim.owner for job in self.held)
        )

    def keep_indexes(self) -> None:
        """Do what a health check does for the indexes."""
        self.ledger.keep_indexes(self.name)

    def wait(self, user: int) -> None:
        """Let a person wait for more GPUs than there are."""
        waiter = Waiter(f"run:bench{user:04}", *_person(user), GPUS, lease_s=DAY_S)
        self.ledger.join_queue(self.name, waiter)

    @property
    def journal(self) -> str:
        return f"bench{self._token}"

    def observation(self) -> Observation:
        """Return a scan in which held GPUs are in use, and its judgement."""
        by_place = {place: job for job in self.held for place in job.gpus}
        readings = tuple(
            _reading(place, uuid, by_place.get(place)) for place, uuid in enumerate(self.uuids)
        )
        in_use = frozenset(uuid for place, uuid in enumerate(self.uuids) if place in by_place)
        covered = {
            uuid: frozenset([by_place[place].claim.owner])
            for place, uuid in enumerate(self.uuids)
            if place in by_place
        }
        scan = Scan(self.name, self.now(), 0.02, readings)
        return Observation(scan, 0.0, in_use, covered=covered, partitions=("gpu", "all"))

    def _named(self, job: Job) -> tuple[str, ...]:
        return tuple(self.uuids[place] for place in job.gpus)

    def _note(self, kind: str, outcome: str, job: Job) -> JournalEntry:
        gpus = self._named(job)
        seen = [
            {"gpu": gpu, "place": str(place), "state": "free", "used_mb": 45}
            for place, gpu in zip(job.gpus, gpus, strict=True)
        ]
        facts = {"outcome": outcome, "took_s": 0.124, "gpus": list(gpus), "seen": seen}
        return JournalEntry(kind, self.now(), job.claim.owner, claim=job.claim, facts=facts)

    def _record(self, entry: JournalEntry) -> None:
        self.ledger.record_entries(
            self.name, self.journal, [NumberedEntry(next(self.numbers), entry)]
        )


def _person(user: int) -> tuple[str, int]:
    """Return the name and the uid of one of the bench's users."""
    return f"user{user:04}", 20000 + user


def _reading(place: int, uuid: str, job: Job | None) -> GpuReading:
    processes: tuple[GpuProcess, ...] = ()
    if job is not None:
        in_job = f"slurm:{job.number}"
        processes = (GpuProcess(4000 + place, job.uid, job.user, "python3", 41000, job=in_job),)
    used = 41045 if job else 45
    return GpuReading(place, uuid, place, MODEL, used, 81559, processes, None, HEALTH)


def live(node: NodeLife, days: float, jobs_a_day: int, pass_s: Callable[[float], None]) -> None:
    """Let so many days go by; `pass_s` lets seconds pass on the store's clock."""
    ends: list[tuple[float, Job]] = []
    elapsed_s, step_s = 0.0, DAY_S / jobs_a_day
    for turn in range(round(days * jobs_a_day)):
        while ends and ends[0][0] <= elapsed_s:
            node.end(ends.pop(0)[1])
        # A GPU counts as free again by a scan that began after its release.
        pass_s(SETTLE_S)
        job = node.start(turn * 7 % USERS_OF_A_NODE, GPU_COUNTS[turn % len(GPU_COUNTS)])
        if job is not None:
            ends.append((elapsed_s + HELD_S, job))
        pass_s(step_s - SETTLE_S)
        elapsed_s += step_s
        if turn % jobs_a_day == 0:
            node.keep_indexes()
    node.wait(3)
    node.check()
    # So that the entries count as complete from now on.
    pass_s(CHECK_EVERY_S)
    node.keep_indexes()
