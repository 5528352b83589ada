"""A hook that dies, stops or fails at any of its steps leaves one of two states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from crashes.crash_node import CrashNode, Work, make_crash_node
from crashes.crash_page import NO_CRASH, Crash
from crashes.exploration import Ended, Scenario, explore
from crashes.node_image import remove_files
from simulated_driver import install_driver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

JOB, OTHER, NEXT = "12", "13", "14"
Deed = Callable[[CrashNode], object]
SAMPLE = {"kills": 3, "stops": 1, "disk full": 1, "write errors": 1, "connections lost": 1}


@dataclass(frozen=True)
class Operation:
    """`prepare` comes before it, `recover` after its crash.

    `jobs_after` are the jobs that Slurm has then.
    """

    name: str
    prepare: list[Deed]
    work: Callable[[CrashNode], Work]
    recover: list[Deed]
    jobs_after: tuple[str, ...] = ()


def hook(name: str, **variables: str) -> Deed:
    def run(node: CrashNode) -> None:
        done = node.do(node.hook(name, **variables))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (name, done)

    return run


def slurm_has(*jobs: str) -> Deed:
    return lambda node: node.slurm_has(*jobs)


def lose_book(node: CrashNode) -> None:
    (node.state_dir / "book.json").unlink()


def store_away(node: CrashNode) -> None:
    node.node.configure(store={"url": "unix:///nowhere/redis.sock"})


def store_back(node: CrashNode) -> None:
    node.node.configure(store={"url": node.node.server.url})
    node.node.forget_outage()


CHECK = hook("health_check")
STARTED = [slurm_has(JOB), hook("prolog")]


def a_prolog(node: CrashNode) -> Work:
    return node.hook("prolog")


def an_epilog(node: CrashNode) -> Work:
    return node.hook("epilog")


def a_check(node: CrashNode) -> Work:
    return node.hook("health_check")


OPERATIONS = [
    Operation(
        "job start, and its second run",
        [slurm_has(JOB)],
        a_prolog,
        [hook("prolog", HOOK_LOST_S="0")],
        (JOB,),
    ),
    Operation("job start, and its epilog", [slurm_has(JOB)], a_prolog, [hook("epilog")]),
    Operation("job start, and a health check", [slurm_has(JOB)], a_prolog, [CHECK]),
    Operation("job end, and its second run", STARTED, an_epilog, [hook("epilog")]),
    Operation("job end, and a health check", STARTED, an_epilog, [CHECK]),
    Operation("health check after a lost epilog", [*STARTED, slurm_has()], a_check, [CHECK]),
    Operation(
        "journal delivery after an outage",
        [slurm_has(JOB), store_away, hook("prolog"), store_back],
        a_check,
        [CHECK],
        (JOB,),
    ),
    Operation("lost-book rebuild", [*STARTED, lose_book], a_check, [CHECK], (JOB,)),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashNode]:
    directory = tmp_path_factory.mktemp("crash")
    driver = install_driver(directory / "driver")
    with make_crash_node(directory, driver, "slurm") as made:
        yield made


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_any_point(node: CrashNode, operation: Operation, figures: Callable[[str], None]) -> None:
    found = explore(prepared(node, operation), SAMPLE)
    figures(str(found))
    assert found.faults == [], "\n".join(found.faults)


def prepared(node: CrashNode, operation: Operation) -> Scenario:
    node.store.flushall()
    for directory in (node.state_dir, node.node.files / "lib"):
        remove_files(directory)
    for action in operation.prepare:
        action(node)
    image = node.image()
    jobs = node.slurms_jobs()

    def run(crash: Crash | None) -> Ended:
        image.put_back(node.store)
        node.slurm_has(*jobs, OTHER)
        faults = crashed(node, operation, crash) if crash else []
        steps, is_hit = node.page.taken_steps(), node.page.is_hit
        starts_beside(node)
        node.slurm_has(*operation.jobs_after, OTHER)
        for action in operation.recover:
            action(node)
        state = node.state()
        faults += state.faults() + next_is_served(node, operation) + node.faults()
        return Ended(crash or NO_CRASH, steps, is_hit, state, faults)

    return Scenario(operation.name, run)


def crashed(node: CrashNode, operation: Operation, crash: Crash) -> list[str]:
    """Carry the operation out with the crash; returns what must not be."""
    log = node.node.files / "slurmd.log"
    log.write_text("")
    done = node.crash(operation.work(node), crash, lambda: starts_beside(node))
    wrong = [] if done.returncode in (0, -9) else [f"status {done.returncode}"]
    said = done.stderr + log.read_text()
    return [*wrong, said] if "Traceback" in said else wrong


def starts_beside(node: CrashNode) -> None:
    """Another job starts, before anything is recovered; a second time it has its GPU already."""
    hook("prolog", SLURM_JOB_ID=OTHER, SLURM_JOB_GPUS="3")(node)


def next_is_served(node: CrashNode, operation: Operation) -> list[str]:
    """The next job gets all that is not held."""
    node.slurm_has(*operation.jobs_after, OTHER, NEXT)
    gpus = "2" if operation.jobs_after else "0,1,2"
    hook("prolog", SLURM_JOB_ID=NEXT, SLURM_JOB_GPUS=gpus)(node)
    owners = list(node.node.owners_by_gpu().values())
    got, wanted = owners.count(f"job:c1:{NEXT}:0"), len(gpus.split(","))
    return [] if got == wanted else [f"the next job got {got} of {wanted} GPUs: {owners}"]
