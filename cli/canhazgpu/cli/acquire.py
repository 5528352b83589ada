"""What `run` and `reserve` have in common: their options, and the way to their GPUs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.completion_values import complete_gpu_ids
from canhazgpu.cli.options import memory_threshold_option
from canhazgpu.cli.param_types import DURATION, GPU_IDS
from canhazgpu.errors import InputError, StoreError, UnavailableError
from canhazgpu.gpu.ids import resolve
from canhazgpu.ledger.port import Terms
from canhazgpu.ledger.values import Waiter
from canhazgpu.node.alive import is_alive, is_stopped, this_process
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.people.gone import Here

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.ids import Selector
    from canhazgpu.gpu.scan import GpuReading
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Claim
    from canhazgpu.probe.port import GpuProbe
    from canhazgpu.refusal import Refusal
    from canhazgpu.service import GpuService, Grant

T = TypeVar("T", bound=Callable[..., Any])
MAX_NOTE = 200
DEFAULT_COUNT = 1
SIGNS_PER_LEASE = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """The GPUs asked for: so many, or exactly these; and how long to wait for them.

    `wait_s` is None for as long as it takes, 0 for not at all.
    """

    count: int
    selectors: tuple[Selector, ...] = ()
    wait_s: float | None = None
    affinity: bool = False
    force: bool = False


def acquire_options(command: T) -> T:
    """Add the options by which people say what GPUs they want."""
    options = [
        click.option(
            "--gpus", type=click.IntRange(min=1), metavar="N", help="How many GPUs.  [default: 1]"
        ),
        click.option(
            "--gpu-ids",
            type=GPU_IDS,
            default=(),
            metavar="IDS",
            shell_complete=complete_gpu_ids,
            help="Exactly these GPUs: indices (1,3 or 0-3), UUIDs or their beginnings.",
        ),
        memory_threshold_option,
        click.option("--nonblock", is_flag=True, help="Fail at once where the GPUs are not free."),
        click.option(
            "--wait",
            type=DURATION,
            metavar="TIME",
            help="Wait so long at most, as 90s, 30m or 2h.  [default: as long as it takes]",
        ),
        click.option("--note", metavar="TEXT", help="Shown to everybody beside the reservation."),
        click.option(
            "--choice",
            type=click.Choice(["lru", "affinity"]),
            help="Which free GPUs: the least recently used, or your last ones."
            "  [default: run.choice]",
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Take GPUs that somebody uses without reservation, too.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def wanted_of(config: Config, options: dict[str, Any]) -> Wanted:
    """Return what the options ask for; raises `InputError` where they contradict each other."""
    gpus, selectors = options["gpus"], options["gpu_ids"]
    if selectors and gpus not in (None, len(selectors)):
        raise InputError(f"--gpus {gpus} and {len(selectors)} GPUs in --gpu-ids: give one of them")
    if options["nonblock"] and options["wait"] is not None:
        raise InputError("--nonblock and --wait contradict each other: give one of them")
    return Wanted(
        count=len(selectors) or gpus or DEFAULT_COUNT,
        selectors=selectors,
        wait_s=0.0 if options["nonblock"] else options["wait"],
        affinity=(options["choice"] or config.run.choice) == "affinity",
        force=options["force"],
    )


def refuse_through_slurm(wanted: Wanted) -> None:
    """Refuse what Slurm would not see to where it gives the GPUs."""
    if wanted.selectors or wanted.force or wanted.wait_s is not None:
        raise InputError(
            "Slurm picks the GPUs of this host and the order (run.via_slurm): use --gpus, without"
            " --force, --nonblock and --wait"
        )


def note_of(options: dict[str, Any]) -> str | None:
    """Return the note, of a length that a table can bear."""
    note = options["note"]
    if note is not None and len(note) > MAX_NOTE:
        raise InputError(f"the note is {len(note)} characters long; accepted: up to {MAX_NOTE}")
    return note or None


@dataclass(slots=True)
class Acquisition:
    """GPUs of this node for one claim: the ports, opened, and the claim."""

    node: str
    config: Config
    service: GpuService
    ledger: Ledger
    claim: Claim

    def get(self, app: App, wanted: Wanted) -> Grant:
        """Return the grant; waits as long as wanted. Raises `UnavailableError`."""
        from canhazgpu.people.wait import Patience, Waiting  # noqa: PLC0415 - imports the service
        from canhazgpu.service import Grant  # noqa: PLC0415

        terms = Terms(queues=True, affinity=wanted.affinity)
        uuids: list[tuple[str, ...]] = []

        def select(readings: Sequence[GpuReading]) -> Sequence[str]:
            uuids[:] = [resolve(wanted.selectors, readings, self.node)]
            return uuids[0]

        def attempt() -> Grant | Refusal:
            if wanted.selectors:
                return self.service.reserve_given(
                    self.claim, select, terms=terms, force=wanted.force
                )
            return self.service.reserve_count(
                self.claim, wanted.count, terms=terms, force=wanted.force
            )

        def waiter() -> Waiter:
            # Whoever waits has the time to import what each of its scans' children then inherits.
            import canhazgpu.probe.nvml  # noqa: F401, PLC0415

            return self._waiter(wanted.count, uuids[0] if uuids else ())

        waiting = Waiting(self.service, self.ledger, self.node, attempt, app.progress())
        with _ended_by_signals() as ended, self._given_back():
            # What the dead kept is free with the next operation, whoever needs it.
            self.service.living_view()
            outcome = waiting.get(waiter, Patience(wanted.wait_s, self._sign_every_s()))
            if ended:
                raise _ending(ended[0])
        if isinstance(outcome, Grant):
            return outcome
        for detail in outcome.details:
            click.echo(f"canhazgpu: {detail}", err=True)
        raise UnavailableError(outcome.reason)

    @contextmanager
    def _given_back(self) -> Iterator[None]:
        """Give back what was granted where the caller is never to hear of it."""
        try:
            yield
        except BaseException:
            with suppress(StoreError):
                self.ledger.release(self.node, self.claim.owner, "gave up")
            raise

    def _sign_every_s(self) -> float:
        # Whoever is silent for a whole lease loses its place.
        return min(self.config.run.heartbeat_s, self.config.run.lease_s / SIGNS_PER_LEASE)

    def _waiter(self, count: int, gpus: tuple[str, ...]) -> Waiter:
        return Waiter(
            owner=self.claim.owner,
            user=self.claim.user,
            uid=self.claim.uid,
            count=count,
            gpus=gpus,
            boot_id=boot_id(),
            processes=(this_process(),),
            pid_namespace=pid_namespace(),
            lease_s=self.config.run.lease_s,
        )


def open_acquisition(app: App, config: Config, claim: Claim) -> Acquisition:
    """Open this node's ledger and probe for a claim."""
    from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - only who takes GPUs needs it

    node = node_name(config.node, app.environ)
    ledger = app.ledger(config.store, Role.WRITE)
    probe = app.probe(node, config.validation)
    return Acquisition(node, config, open_service(node, probe, ledger), ledger, claim)


def open_service(node: str, probe: GpuProbe, ledger: Ledger) -> GpuService:
    """Return the service of this node as this process sees it."""
    from canhazgpu.service import GpuService  # noqa: PLC0415

    return GpuService(node, Here(boot_id(), pid_namespace(), is_alive, is_stopped), probe, ledger)


def warn_of_intruders(grant: Grant, node: str) -> None:
    """Say loudly whose processes are on the GPUs that were taken all the same."""
    from canhazgpu.cli.table import printable  # noqa: PLC0415 - only with --force
    from canhazgpu.refusal import intruder_text  # noqa: PLC0415

    for gpu in grant.gpus:
        if gpu.uuid in grant.in_use:
            text = printable(intruder_text(gpu, node))
            click.secho(f"canhazgpu: WARNING: taken by force: {text}", fg="red", err=True)


class _EndedError(BaseException):
    """A signal asks this process to end; not an error that anything else should catch."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _ending(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else _EndedError(number)


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP leave the queue first, and then end the process as they do.

    Yields the signals that came, SIGINT among them: what a handler raises while Python runs what
    is registered for a fork, as it does for every scan, is lost.
    """
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise _ending(number)

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield came
    except _EndedError as exc:
        signal.signal(exc.number, signal.SIG_DFL)
        signal.raise_signal(exc.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def with_processes(claim: Claim) -> Claim:
    """Return the claim that lives as long as this process does."""
    return replace(
        claim,
        boot_id=boot_id(),
        processes=(this_process(),),
        pid_namespace=pid_namespace(),
    )
