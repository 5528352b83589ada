"""The JSON of a node by its head, without a value for each of its GPUs; pure.

`json_format` has the JSON of any node. What it would write is written here of a node that is plain,
as `counts` and `held_gpus` say. Of any other node nothing is said. A test compares the two for any
content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from canhazgpu.durations import short_duration_text
from canhazgpu.gpu.scan import GpuHealth
from canhazgpu.gpu.usage import UsagePolicy, memory_text
from canhazgpu.ledger.record_json import queue_from_hash
from canhazgpu.ledger.values import NodeHead, Waiter
from canhazgpu.status.details_cell import claim_text, note_text
from canhazgpu.status.heads.chosen_gpus import ChosenGpus
from canhazgpu.status.heads.counts import NOT_PLAIN_ERRORS, NotPlainError, plain_node
from canhazgpu.status.heads.held_gpus import Holder, held_memory_mb, held_use_text, holder_of
from canhazgpu.status.json_format import iso_time
from canhazgpu.status.node_status import SCANNED_BEFORE_GRANT
from canhazgpu.status.status_filter import StatusFilter

_HEALTH_FIELDS = tuple(one.name for one in fields(GpuHealth))
_HEALTH_TYPES = (str, bool, type(None), int)

_quoted = encode_basestring_ascii
# `json.dumps` makes an encoder for each text that is not of the usual form.
_compact = json.JSONEncoder(separators=(",", ":")).encode


class NodeText(NamedTuple):
    """A node as its JSON: the one of `json_format`, without blanks; "" where nothing is shown."""

    node: str
    read_at: float
    json: str
    partitions: tuple[str, ...] | None

    @property
    def shows_nothing(self) -> bool:
        """Whether no GPU is to be shown."""
        return not self.json


class PlainNodesJson:
    """Writes the JSON of plain nodes; what many of them have in common is written once.

    Only GPUs that the filter chooses are in it.
    """

    def __init__(self, policy: UsagePolicy, chosen: StatusFilter | None = None) -> None:
        self._policy = policy
        self._chosen = ChosenGpus(chosen)
        self._times: dict[int, str] = {}
        self._free_for: dict[int, str] = {}
        self._partitions: dict[tuple[str, ...] | None, str] = {}
        self._healths: dict[tuple[Any, ...], str] = {}

    def text(self, head: NodeHead) -> NodeText | None:
        """Return the JSON; None for a node that is not plain."""
        try:
            return self._text(head, head.content or {})
        except NOT_PLAIN_ERRORS:
            return None

    def _text(self, node: NodeHead, head: Mapping[str, Any]) -> NodeText:
        queue = queue_from_hash(node.queue or {}, node.read_at) if head["waiting"] else ()
        plain = plain_node(node, head, self._policy, queue)
        holders = [
            self._holder(holder_of(record), node.read_at, plain.scanned_at)
            for record in head["records"]
        ]
        gpus = self._gpus(node, head, holders)
        if not (gpus or self._chosen.are_all):
            return NodeText(node.node, node.read_at, "", plain.partitions)
        waiters = ",".join([self._waiter(place, one) for place, one in enumerate(queue, 1)])
        text = (
            f'{{"node":{_quoted(node.node)},"scanned_at":{self._time(plain.scanned_at)},'
            f'"live":false,"source":{_quoted(plain.source)},"fault":null,'
            f'"found_gpus":{plain.total},"expected_gpus":{plain.expected_gpus or "null"},'
            f'"partitions":{self._partitions_text(plain.partitions)},'
            f'"partitions_at":{self._time(plain.partitions_at)},'
            '"reservations_known":true,"hooks_outage":null,'
            f'"gpus":[{",".join(gpus)}],"queue":[{waiters}]}}'
        )
        return NodeText(node.node, node.read_at, text, plain.partitions)

    def _gpus(
        self,
        node: NodeHead,
        head: Mapping[str, Any],
        holders: Sequence[tuple[str, str, bool]],
    ) -> list[str]:
        brief, held, released, read_at = head["brief"], head["held"], head["released"], node.read_at
        names = [
            f'"parent_uuid":null,"name":{_quoted(one)},"mig_profile":null,"state":'
            for one in brief["names"]
        ]
        healths = [self._health(one) for one in brief["healths"]]
        found, chosen = [], self._chosen
        rows = zip(brief["gpus"], brief["health_of"], brief["utilization"], strict=True)
        # A loop over every GPU of the cluster: the two texts stand in it as wholes.
        for (uuid, index, name, used, total, processes), health, percent in rows:
            if percent is not None and type(percent) is not int:
                raise NotPlainError
            shown_percent = "null" if percent is None else percent
            place = held.get(uuid)
            if place is None:
                if not chosen.has_free(brief["names"][name]):
                    continue
                found.append(
                    f'{{"index":{index},"mig_index":null,"uuid":{_quoted(uuid)},{names[name]}'
                    '"available","reservation":null,"reservations":[],"quarantine":null,'
                    f'"health":{healths[health]},"memory_used_mb":{used},"memory_total_mb":{total},'
                    f'"utilization_percent":{shown_percent},"processes":[],"intruders":[],'
                    '"others_below_threshold":[],"model":null,'
                    f'"details":{self._free_text(released.get(uuid), read_at)},'
                    f'"validation":"{memory_text(used)} used"}}'
                )
                continue
            reservation, details, is_newer = holders[place]
            listed, model, validation = self._use(processes, used)
            if not chosen.has_held(brief["names"][name], () if is_newer else processes):
                continue
            if is_newer:
                shown_percent = model = "null"
                validation = f'"cannot tell: {SCANNED_BEFORE_GRANT}"'
            found.append(
                f'{{"index":{index},"mig_index":null,"uuid":{_quoted(uuid)},{names[name]}'
                f'"reserved",{reservation},"quarantine":null,'
                f'"health":{healths[health]},"memory_used_mb":{used},"memory_total_mb":{total},'
                f'"utilization_percent":{shown_percent},"processes":[{listed}],"intruders":[],'
                f'"others_below_threshold":[],"model":{model},"details":{details},'
                f'"validation":{validation}}}'
            )
        return found

    def _holder(self, one: Holder, read_at: float, scanned_at: float) -> tuple[str, str, bool]:
        """Return the reservation's fields, its details, and whether it is newer than the scan."""
        claim = claim_text(one.job_id, one.job_name, one.ends_at, read_at, wide=True)
        details = "; ".join(filter(None, (claim, note_text(one.note, wide=True))))
        reservation = (
            f'{{"type":{_quoted(one.type)},"user":{_quoted(one.user)},'
            f'"job_id":{_quoted_or_null(one.job_id)},"job_name":{_quoted_or_null(one.job_name)},'
            f'"owner":{_quoted(one.owner)},"note":{_quoted_or_null(one.note)},"share":null,'
            f'"granted_at":{self._time(one.granted_at or None)},'
            f'"renewed_at":{self._time(one.renewed_at)},"ends_at":{self._time(one.ends_at)}}}'
        )
        return (
            f'"reservation":{reservation},"reservations":[{reservation}]',
            _quoted(details),
            one.granted_at > scanned_at,
        )

    def _waiter(self, position: int, one: Waiter) -> str:
        """Return what `json_format.waiter_to_dict` has."""
        return (
            f'{{"position":{position},"user":{_quoted(one.user)},"count":{one.count},'
            f'"mig_profile":{_quoted_or_null(one.profile or None)},'
            f'"gpus":{_compact(one.gpus) if one.gpus else "[]"},"owner":{_quoted(one.owner)},'
            f'"since":{self._time(one.since)}}}'
        )

    def _use(self, processes: Sequence[Any], used_mb: int) -> tuple[str, str, str]:
        """Return a held GPU's processes, its model, and the use that they are."""
        memory_mb = held_memory_mb(processes, used_mb, self._policy)
        model, listed = "null", []
        for pid, _, user, name, of_process_mb, of_model, job, _, _ in processes:
            shown_model = _quoted_or_null(of_model)
            if model == "null" and of_model:
                model = shown_model
            listed.append(
                f'{{"pid":{pid},"user":{_quoted_or_null(user)},"name":{_quoted_or_null(name)},'
                f'"memory_mb":{of_process_mb},"model":{shown_model},"job":{_quoted_or_null(job)},'
                '"ignored":false}'
            )
        validation = held_use_text(memory_mb, len(processes), self._policy)
        return ",".join(listed), model, f'"{validation}"'

    def _time(self, seconds: float | None) -> str:
        if seconds is None:
            return "null"
        second = int(seconds)
        known = self._times.get(second)
        if known is None:
            known = self._times[second] = json.dumps(iso_time(seconds))
        return known

    def _free_text(self, released_ms: str | None, read_at: float) -> str:
        if released_ms is None:
            return '""'
        seconds = int(read_at - float(released_ms) / 1000)
        known = self._free_for.get(seconds)
        if known is None:
            known = self._free_for[seconds] = f'"free for {short_duration_text(seconds)}"'
        return known

    def _partitions_text(self, partitions: tuple[str, ...] | None) -> str:
        known = self._partitions.get(partitions)
        if known is None:
            known = self._partitions[partitions] = _compact(partitions)
        return known

    def _health(self, values: list[Any] | None) -> str:
        if values is None:
            return "null"
        key = tuple(values)
        known = self._healths.get(key)
        if known is None:
            if any(type(one) not in _HEALTH_TYPES for one in key):
                raise NotPlainError
            known = self._healths[key] = _compact(dict(zip(_HEALTH_FIELDS, key, strict=True)))
        return known


def _quoted_or_null(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)
