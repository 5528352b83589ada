"""The ledger in Redis: each change is one Lua script and one round trip.

Each script in ``scripts/`` documents its arguments, answers and invariants, and has one typed
method here. Reads are plain commands: a user with read permission only can run them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.errors import InputError, LimitError
from canhazgpu.gpu.scan import Scan, whole_gpus
from canhazgpu.gpu.scan_json import scan_to_published_json
from canhazgpu.gpu.scan_supplement import brief_to_json, plain_to_json, supplement_to_json
from canhazgpu.ledger.duration_limit import check_duration
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.journal_entries import NumberedEntry, OverruledReservation
from canhazgpu.ledger.port import (
    JOB_GRANT_OPTIONS,
    Confirmed,
    GrantOptions,
    GrantSettled,
    Observation,
    UnconfirmedGrant,
)
from canhazgpu.ledger.record_json import (
    claim_to_json,
    processes_to_list,
    reservation_from_json,
    to_json,
    waiter_to_dict,
    waiter_to_json,
)
from canhazgpu.ledger.release_reasons import was_unused
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.history.reading import await_event, read_days, read_history
from canhazgpu.ledger.store.indexes.hints import Hints
from canhazgpu.ledger.store.journal_encoding import encode_entries
from canhazgpu.ledger.store.node_queries import NodeQueries
from canhazgpu.ledger.store.session import StoreSession
from canhazgpu.ledger.user_limits import reserve_limit_text
from canhazgpu.ledger.values import Claim, Event, Reservation, Waiter, claim_to_dict
from canhazgpu.node.process_id import ProcessId

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.ledger.store.connect import Role
    from canhazgpu.ledger.wait_budget import WaitBudget
    from canhazgpu.node.identity import NodeIdentity


class RedisLedger(NodeQueries):
    """`Ledger` over a Redis or Valkey server; see `canhazgpu.ledger.port.Ledger`."""

    def __init__(
        self,
        store: StoreConfig,
        role: Role,
        budget: WaitBudget | None = None,
        identity: NodeIdentity | None = None,
    ) -> None:
        """Open nothing yet. All waits of the ledger together are limited by the budget.

        With an `identity`, changes of that node raise `ForeignNodeError` where the store has the
        node's name for another cluster's machine.
        """
        super().__init__(StoreSession(store, role, budget, identity), store)
        self._nodes_key = keys.nodes_key(store.prefix)

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        """See `Ledger.reserve_count`."""
        answer = self._reserve("reserve_count", claim, observation, options, count)
        if isinstance(answer, GrantedGpus):
            # A new and a repeated grant have the same order; GPUs missing from the scan come last.
            scan_order = {gpu: position for position, gpu in enumerate(observation.scan.by_uuid())}
            in_order = sorted(
                answer.gpus, key=lambda gpu: (scan_order.get(gpu, len(scan_order)), gpu)
            )
            return GrantedGpus(tuple(in_order), answer.repeated)
        return answer if isinstance(answer, QueuePosition) else TooFewGpus(count, *map(int, answer))

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        """See `Ledger.reserve_given`."""
        wanted = to_json(list(dict.fromkeys(gpus)))
        answer = self._reserve("reserve_given", claim, observation, options, wanted)
        if isinstance(answer, GrantedGpus | QueuePosition):
            return answer
        gpu, why, holder = answer
        return BlockedGpu(gpu, why, reservation_from_json(gpu, holder) if holder else None)

    def commit(self, owner: str) -> CommitRefusal | None:
        """See `Ledger.commit`; the store's own grants are final at once."""
        return None

    def confirm(self, node: str, grant: UnconfirmedGrant, observation: Observation) -> Confirmed:
        """See `Ledger.confirm`."""
        claim = {**claim_to_dict(grant.claim), "grant_number": grant.number}
        known, overruled, code, *rest = self._session.run_script(
            "confirm",
            self._keys(node),
            grant.journal,
            to_json(encode_entries(grant.entries)),
            grant.settled_through,
            *self._scan_arguments(observation),
            to_json(claim),
            to_json(list(grant.gpus)),
            hints=self._hints(node, [grant.claim], grant.entries),
        )
        if not known:
            self._list_node(node)
        return Confirmed(_confirm_outcome(code, rest), _overruled(overruled))

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        found = self._keys(node)
        unused = "1" if was_unused(reason, by) else ""
        released = self._session.run_script(
            "release",
            found,
            owner,
            _gpu_filter(gpus),
            reason,
            by,
            unused,
            hints=self._hints(node, owners=[owner]),
        )
        return cast(list[str], released)

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """See `Ledger.renew`."""
        listed = to_json(processes_to_list(tuple(processes or ())))
        return cast(list[str], self._session.run_script("renew", self._keys(node), owner, listed))

    def extend(
        self,
        node: str,
        owner: str,
        duration_s: float,
        gpus: Sequence[str] = (),
        longest_s: float = 0.0,
    ) -> list[Reservation]:
        """See `Ledger.extend`."""
        check_duration(duration_s)
        longer_ms, longest_ms = math.ceil(duration_s * 1000), math.ceil(longest_s * 1000)
        flat = self._session.run_script(
            "extend",
            self._keys(node),
            owner,
            _gpu_filter(gpus),
            longer_ms,
            longest_ms,
            hints=self._hints(node, owners=[owner]),
        )
        if flat == ["too long"]:
            raise LimitError(reserve_limit_text(longest_s))
        return [reservation_from_json(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)]

    def join_queue(self, node: str, waiter: Waiter) -> int:
        """See `Ledger.join_queue`."""
        check_duration(waiter.lease_s)
        hints = self._hints(node, [waiter])
        return int(
            self._session.run_script(
                "wait_turn", self._keys(node), waiter_to_json(waiter), hints=hints
            )
        )

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`."""
        self._session.run_script("leave_queue", self._keys(node), to_json(list(owners)), reason)

    def mirror_queue(self, node: str, waiters: Sequence[Waiter], reason: str) -> None:
        """See `Ledger.mirror_queue`."""
        listed = [{**waiter_to_dict(one), "since_ms": int(one.since * 1000)} for one in waiters]
        hints = self._hints(node, waiters)
        self._session.run_script(
            "mirror_queue", self._keys(node), to_json(listed), reason, hints=hints
        )

    def wait_for_event(self, node: str, after: str, timeout_s: float) -> str:
        """See `Ledger.wait_for_event`."""
        return await_event(self._session, self._keys(node).history, after, timeout_s)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        return bool(self._session.run_script("quarantine", self._keys(node), gpu, reason, by))

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        return bool(self._session.run_script("unquarantine", self._keys(node), gpu, by))

    def forget_node(self, node: str) -> bool:
        """See `Ledger.forget_node`."""
        answer, detail = self._session.run_script("forget_node", self._keys(node))
        if answer == "reserved":
            raise InputError(f"{node} is not forgotten: {detail} is reserved; release it first")
        with self._session.client() as client:
            listed = client.srem(self._nodes_key, node)
        self._listed.discard(node)
        return bool(detail or listed)

    def history(self, node: str, since: float) -> list[Event]:
        """See `Ledger.history`."""
        return read_history(self._session, self._keys(node), since)

    def record_entries(
        self, node: str, journal: str, entries: Sequence[NumberedEntry]
    ) -> list[OverruledReservation]:
        """See `Ledger.record_entries`."""
        answer = self._session.run_script(
            "record",
            self._keys(node),
            journal,
            to_json(encode_entries(entries)),
            hints=self._hints(node, (), entries),
        )
        return list(_overruled(answer))

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        """See `Ledger.publish_scan`."""
        node = observation.scan.node
        heartbeats = to_json(dict.fromkeys(alive, True))
        known = self._session.run_script(
            "publish_scan",
            self._keys(node),
            *self._scan_arguments(observation),
            heartbeats,
            hints=self._hints(node, scan=observation.scan),
        )
        # Needless if this process saw the node listed, and the script found an earlier scan: a node
        # that was forgotten since has none.
        if not known or node not in self._listed:
            self._list_node(node)

    def name_jobs(self, node: str, named: Mapping[str, Mapping[str, object]]) -> int:
        """See `Ledger.name_jobs`."""
        return int(self._session.run_script("name_jobs", self._keys(node), to_json(named)))

    def keep_indexes(self, node: str) -> None:
        """See `Ledger.keep_indexes`."""
        from canhazgpu.ledger.store.indexes.upkeep import keep_indexes  # noqa: PLC0415 - health checks alone

        keep_indexes(self._session, node, self._keys(node), self._prefix, self._history_days)

    def history_on(self, node: str, days: Collection[int]) -> list[Event]:
        """See `Ledger.history_on`."""
        return read_days(self._session, self._keys(node), days)

    def _hints(
        self,
        node: str,
        who: Iterable[Claim | Waiter] = (),
        entries: Iterable[NumberedEntry] = (),
        owners: Iterable[str] = (),
        scan: Scan | None = None,
    ) -> Hints:
        """Return where to look for these owners, the journal's, and who uses the scan's GPUs."""
        hints = Hints(self._prefix, node, time.time())
        for one in who:
            hints.add_holder(one)
        for owner in owners:
            hints.add_owner(owner)
        for numbered in entries:
            hints.add_entry(numbered.entry)
        for gpu in scan.gpus if scan else ():
            for process in gpu.processes:
                hints.add_user(process.uid)
        return hints

    def _reserve(
        self,
        script: str,
        claim: Claim,
        observation: Observation,
        options: GrantOptions,
        wanted: str | int,
    ) -> GrantedGpus | QueuePosition | Sequence[Any]:
        """Return the answer common to both scripts, else the rest of the script's answer."""
        if claim.duration_s is not None:
            check_duration(claim.duration_s)
        known, code, *rest = self._session.run_script(
            script,
            self._keys(observation.scan.node),
            *self._scan_arguments(observation),
            claim_to_json(claim),
            _terms_json(options),
            wanted,
            hints=self._hints(observation.scan.node, [claim], scan=observation.scan),
        )
        if not known:
            self._list_node(observation.scan.node)
        if code == "queued":
            return QueuePosition(int(rest[0]))
        return (
            GrantedGpus(tuple(rest), code == "repeated")
            if code in ("granted", "repeated")
            else rest
        )

    def _scan_arguments(self, observation: Observation) -> tuple[int, str, str]:
        """Return the scan's age in ms, the scan, and the judgement, as the scripts take them."""
        scan_began = time.monotonic() - observation.age_s
        unfit = dict.fromkeys(observation.in_use, "unreserved")
        unfit |= dict.fromkeys(observation.unknown, "unknown")
        judgement = {
            "gpus": list(observation.scan.by_uuid()),
            "unfit": unfit,
            "unhealthy": dict(observation.unhealthy),
            "complete": observation.is_complete,
        }
        covered = {gpu: sorted(owners) for gpu, owners in observation.covered.items()}
        if observation.partitions is not None:
            judgement["partitions"] = to_json(observation.partitions)
        scan = scan_to_published_json(observation.scan)
        # One line each: JSON has no line feeds.
        judgement_lines = "\n".join(
            (
                supplement_to_json(observation.scan),
                brief_to_json(observation.scan),
                plain_to_json(observation.scan),
                to_json(whole_gpus(observation.scan)),
                to_json(covered),
                to_json(judgement),
            )
        )
        self._session.open()
        # Measured last, and rounded up: a scan that seems older only costs another scan.
        return int((time.monotonic() - scan_began) * 1000) + 1, scan, judgement_lines

    def _list_node(self, node: str) -> None:
        # A separate command: the index lacks the node's hash tag, so no script may use both.
        with self._session.client() as client:
            client.sadd(self._nodes_key, node)
        self._listed.add(node)


def _confirm_outcome(code: str, rest: Sequence[Any]) -> BlockedGpu | GrantSettled | None:
    if code == "granted":
        return None
    if code == "over":
        return GrantSettled(int(rest[0]))
    gpu, why, holder = rest
    return BlockedGpu(gpu, why, reservation_from_json(gpu, holder) if holder else None)


def _overruled(answer: Iterable[Sequence[str]]) -> tuple[OverruledReservation, ...]:
    return tuple(
        OverruledReservation(gpu, reservation_from_json(gpu, before), owner, user)
        for gpu, before, owner, user in answer
    )


def _terms_json(options: GrantOptions) -> str:
    terms: dict[str, Any] = {"queues": options.queues, "affinity": options.affinity}
    if options.candidates is not None:
        terms["candidates"] = dict.fromkeys(sorted(options.candidates), True)
    return to_json(terms)


def _gpu_filter(gpus: Iterable[str]) -> str:
    return to_json(dict.fromkeys(gpus, True))
