"""What one run of a hook observed, did and logged, for the history and for syslog."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from canhazgpu.frozen_dataclass import dataclass as frozen_dataclass
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.journal_entries import EPILOG, PROLOG, JournalEntry
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim
from canhazgpu.logfmt import log_line
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog
from canhazgpu.schedulers.slurm.control.shortened_comment import shortened_comment
from canhazgpu.schedulers.slurm.hook.scan_facts import notable_gpus

MAX_WHY_LENGTH = 400
"""Characters of one reason in the history and in syslog."""
MAX_DECISIONS = 8
"""Decisions in the history's `reason` and in syslog: of more, the first and the last ones."""
MAX_DECISION_FACTS = 40
"""Decisions in the history's facts."""
MAX_SEEN_GPUS = 64
"""GPUs in the facts of one hook."""


@frozen_dataclass(frozen=True, slots=True)
class SeenConflict:
    """Why a job's GPUs were refused, and which policy decided about the job, in a word each.

    The policy is "" where none had to. `failed` says that the scheduler could not be asked.
    """

    cause: str
    policy: str = ""
    failed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it for the history."""
        told: dict[str, Any] = {"cause": self.cause, "policy": self.policy}
        return {**told, "failed": True} if self.failed else told


EARLIER_ATTEMPT = "earlier"
UNKNOWN_ATTEMPT = "unknown"
"""What the fact ``attempt`` says where an epilog is not known to be its owner's."""


@frozen_dataclass(frozen=True, slots=True)
class HookDecision:
    """What a hook did or found, and why; `numbers` are details of it, such as the requeue's number.

    With `why_first` the log says the reason before the deed.
    """

    what: str
    why: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    why_first: bool = False

    @property
    def text(self) -> str:
        """The decision as one line."""
        words = (self.why, self.what) if self.why_first else (self.what, self.why)
        return ": ".join(filter(None, words))

    def shortened(self) -> HookDecision:
        """Return it with texts of bounded length; no word is cut."""
        return replace(
            self,
            what=shortened_comment(self.what, MAX_WHY_LENGTH),
            why=shortened_comment(self.why, MAX_WHY_LENGTH),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for the history; ``cause`` is a reason that was there before the deed."""
        return {"what": self.what, "cause" if self.why_first else "why": self.why, **self.numbers}


@dataclass(slots=True)
class HookLog:
    """The log of one run of a hook, filled while it runs.

    `ledger` is the ledger that the hook opened, None before. `ended_owner` is the attempt that an
    epilog ended: for a requeued job, slurmd gives the epilog the next attempt's number. `attempt`
    is that of an epilog which ended no attempt on record, see `UNKNOWN_ATTEMPT`.
    `recorded_gpus` are the GPUs of the attempt that an epilog ended, by the node's record.
    `messages` are all logged lines, `decisions` those about the job. `conflict` is that of the
    job's start, None without one. `use` is what the job made of its GPUs, see `use_text`.
    """

    started_at: float = field(default_factory=time.monotonic)
    last_observation: Observation | None = None
    messages: list[str] = field(default_factory=list)
    decisions: list[HookDecision] = field(default_factory=list)
    ledger: FallbackLedger | None = None
    ended_owner: JobOwner | None = None
    attempt: str = ""
    recorded_gpus: tuple[str, ...] = ()
    conflict: SeenConflict | None = None
    use: Mapping[str, Any] = field(default_factory=dict)

    def took_s(self) -> float:
        """Return how long the hook has run, to the millisecond."""
        return round(time.monotonic() - self.started_at, 3)

    def owner_of(self, owner: JobOwner) -> JobOwner:
        """Return the attempt that this log is of; Slurm told `owner`.

        An epilog without a record of its attempt is of the one whose GPUs it released, if it
        released any.
        """
        if self.ended_owner is not None or not self.attempt or self.ledger is None:
            return self.ended_owner or owner
        for attempt in range(owner.attempt, max(owner.attempt - 2, -1), -1):
            one = replace(owner, attempt=attempt)
            if one.token in self.ledger.released:
                self.attempt = ""
                return one
        return replace(owner, attempt=max(owner.attempt - 1, 0)) if self.is_earlier else owner

    @property
    def is_earlier(self) -> bool:
        """Whether the epilog is of an attempt before the one on record."""
        return self.attempt == EARLIER_ATTEMPT

    def outcome(self, kind: str, owner: str) -> str:
        """Return the outcome for the job's GPUs, in one word."""
        if self.ledger is None:
            return "fault"
        if kind == EPILOG:
            return "released" if self.gpus(kind, owner) else "nothing"
        if self._granted_gpus(owner):
            return "granted"
        return "nothing" if self.ledger.last_answer is None else "refused"

    def gpus(self, kind: str, owner: str) -> tuple[str, ...]:
        """Return the GPUs that were granted to the owner, or released.

        Another job's epilog may have released them before.
        """
        if self.ledger is None:
            return ()
        if kind == EPILOG:
            return tuple(self.ledger.released.get(owner, ())) or self.recorded_gpus
        return self._granted_gpus(owner)

    def _granted_gpus(self, owner: str) -> tuple[str, ...]:
        """Return the GPUs that were granted to the owner and not given back at the second look."""
        if self.ledger is None or not isinstance(self.ledger.last_answer, GrantedGpus):
            return ()
        given_back = self.ledger.released.get(owner, ())
        return tuple(gpu for gpu in self.ledger.last_answer.gpus if gpu not in given_back)

    def history_entry(self, kind: str, claim: Claim) -> JournalEntry:
        """Return the hook's entry for the history."""
        gpus, outcome = self.gpus(kind, claim.owner), self.outcome(kind, claim.owner)
        # What others had in use explains why a job did not start, and nothing else.
        others = kind == PROLOG and outcome == "refused"
        facts: dict[str, Any] = {
            "outcome": outcome,
            "took_s": self.took_s(),
            "gpus": list(gpus),
            "seen": []
            if self.last_observation is None
            else notable_gpus(self.last_observation, gpus, others=others)[:MAX_SEEN_GPUS],
        }
        decisions = [one.shortened() for one in self.decisions]
        if decisions:
            facts["actions"] = [
                one.to_dict() for one in _first_and_last(decisions, MAX_DECISION_FACTS)
            ]
        if self.conflict is not None:
            facts["conflict"] = self.conflict.to_dict()
        if self.use:
            facts["use"] = dict(self.use)
        if self.attempt:
            facts["attempt"] = self.attempt
        if self.ledger is not None and self.ledger.without_store:
            facts["without_store"] = self.ledger.without_store
        return JournalEntry(kind, 0.0, claim.owner, claim=claim, reason=self.reason(), facts=facts)

    def reason(self) -> str:
        """Return the logged messages as one text, "" if there are none."""
        messages = [HookDecision(one) for one in self.messages]
        return "; ".join(one.what for one in _first_and_last(messages, MAX_DECISIONS))

    def syslog_line(self, kind: str, node: str, claim: Claim) -> str:
        """Return the hook's line for syslog."""
        return log_line(
            kind,
            node=node,
            job=claim.job_id,
            owner=claim.owner,
            user=claim.user,
            outcome=self.outcome(kind, claim.owner),
            gpus=self.gpus(kind, claim.owner) or None,
            took_s=self.took_s(),
            without_store=(self.ledger and self.ledger.without_store) or None,
            reason=self.reason() or None,
        )


def _first_and_last(decisions: Sequence[HookDecision], limit: int) -> list[HookDecision]:
    """Return at most `limit` of them and, between the first and the last ones, how many more."""
    if len(decisions) <= limit:
        return list(decisions)
    left_out = HookDecision(f"and {len(decisions) - limit} more")
    return [*decisions[: limit // 2], left_out, *decisions[-(limit - limit // 2) :]]


def write_hook_log(hook_log: HookLog, kind: str, node: str, claim: Claim) -> None:
    """Write the hook's line to syslog, and its entry to the history if it opened a ledger."""
    write_syslog(hook_log.syslog_line(kind, node, claim), DAEMON_INFO)
    if hook_log.ledger is not None:
        hook_log.ledger.record_note(hook_log.history_entry(kind, claim))
