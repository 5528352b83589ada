"""What all pages share: the readers, the templates, and how an answer is made of them."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from canhazgpu.cli.web.answer_cache import Answer, AnswerCache
from canhazgpu.cli.web.guard import user_of
from canhazgpu.cli.web.rendering import json_text, make_environment, segment
from canhazgpu.cli.web.tiles import INTRUDED, STATE_WORDS, symbol
from canhazgpu.errors import CanhazgpuError, UnknownNameError, error_text
from canhazgpu.service.status import StatusRequest
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request

    from canhazgpu.cli.web.cluster_state import ClusterReader, ClusterState, Snapshot
    from canhazgpu.cli.web.sources.port import ClusterSource
    from canhazgpu.config.schema import WebConfig
    from canhazgpu.service.history import ExplainAnswer, ReportAnswer
    from canhazgpu.service.status import StatusAnswer

MAX_KEPT = 64
"""Pages that are kept as they were made of one state of the cluster."""
REPORT_KEPT_S = 60.0
PLACES = {"node": "/nodes/", "partition": "/?partition=", "user": "/?user="}
"""Where what an `UnknownNameError` knows of is shown."""
AS_OF = Markup("<!--as-of-->")
"""Where a page has the time of its state, which is no change of the page."""
LEGEND = (*STATE_WORDS, INTRUDED)


class UnknownError(CanhazgpuError):
    """Somebody asked for what does not exist; `known` is what does, with addresses."""

    def __init__(self, text: str, known: list[tuple[str, str]] | None = None) -> None:
        super().__init__(text)
        self.known = known or []


class NothingKnownError(CanhazgpuError):
    """Nothing was ever read: there is no state to show, not even an old one."""


class BeingReadError(NothingKnownError):
    """The cluster is read for the first time, which takes a moment; look again."""

    def __init__(self) -> None:
        super().__init__(
            "the cluster is read for the first time, which takes a moment where it is large:"
            " this page loads itself again"
        )


@dataclass
class Site:
    """The parts that pages are made of; `open_source` opens what reads."""

    config: WebConfig
    reader: ClusterReader
    open_source: Callable[[], ClusterSource]
    release: str = ""
    templates: Environment = field(init=False)
    jobs: AnswerCache[ExplainAnswer] = field(init=False)
    reports: AnswerCache[ReportAnswer] = field(init=False)
    nodes: AnswerCache[StatusAnswer] = field(init=False)
    _kept: OrderedDict[Hashable, str] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        """Make what depends on the configuration."""
        self.templates = make_environment(self.config.root_path)
        self.templates.globals |= {
            "release": self.release,
            "words": {**STATE_WORDS, INTRUDED: "reserved, and used by others"},
            "symbols": {one: symbol(one) for one in LEGEND},
        }
        self.jobs = AnswerCache(self.config.poll_s)
        self.reports = AnswerCache(REPORT_KEPT_S)
        self.nodes = AnswerCache(self.config.poll_s)

    def state(self, *, waits: bool = False) -> ClusterState:
        """Return the cluster's state; raises `NothingKnownError` where there is none.

        A person gets what is known and the next state by an event; a program, which sees no
        event, `waits` for a state that is not old.
        """
        state = self.reader.current() if waits else self.reader.at_once()
        if state.snapshot is None:
            if not state.number:
                raise BeingReadError
            raise NothingKnownError(state.fault)
        return state

    def snapshot(self, *, waits: bool = False) -> Snapshot:
        """Return what is known of the cluster, as `state`."""
        state = self.state(waits=waits)
        assert state.snapshot is not None  # noqa: S101 - for the types
        return state.snapshot

    def node(self, name: str, wait_s: float) -> Answer[StatusAnswer]:
        """Return one node as it is recorded in full, as `AnswerCache.get`."""
        request = StatusRequest((name,))
        return self.nodes.get(name, lambda: self.open_source().status(request), wait_s)

    def viewer(self, request: Request) -> str:
        """Return the name of who looks, "" where nobody tells it."""
        client = (request.client.host, request.client.port) if request.client else None
        return user_of(self.config, client, request.headers)

    def page(
        self,
        request: Request,
        template: str,
        values: Callable[[], dict[str, Any]],
        status: int = 200,
        fault: str = "",
        since: float | None = None,
        version: float = 0.0,
    ) -> Response:
        """Return a page; what was made of the same state for the same request is not made again.

        `fault` is an error of this page alone, `since` the time of what it shows in place of the
        present, in seconds since the epoch. `version` differs where something else differs. A
        browser that has the page gets none.
        """
        state, user = self.reader.last, self.viewer(request)
        key = (state.number, request.url.path, request.url.query, user, fault, version)
        text = self._kept.get(key) if status == 200 else None
        if text is None:
            text = self.templates.get_template(template).render(
                user=user,
                here=request.url.path,
                json_address=_json_address(self.config.root_path, request),
                banner=_banner(state, fault, since),
                as_of_mark=AS_OF,
                **values(),
            )
            if status == 200:
                self._keep(key, text)
        tag = f'W/"{hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()}"'
        headers = {"etag": tag, "vary": self.config.user_header or "accept"}
        if status == 200 and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        text = text.replace(AS_OF, _as_of(state), 1)
        return HTMLResponse(text.encode("utf-8", "replace"), status, headers)

    def json(
        self, document: dict[str, Any], status: int = 200, read_at: float | None = None
    ) -> Response:
        """Return a document as JSON; `error` in it says where the state is not the present one.

        It is of the cluster as it was last read, or was read at `read_at` (since the epoch).
        """
        headers = {}
        snapshot = self.reader.last.snapshot
        if read_at is not None:
            headers["age"] = str(max(int(time.time() - read_at), 0))
        elif snapshot is not None:
            headers["age"] = str(max(int(self.reader.clock() - snapshot.read_at), 0))
        return Response(json_text(document), status, headers, "application/json")

    def _keep(self, key: Hashable, text: str) -> None:
        self._kept[key] = text
        while len(self._kept) > MAX_KEPT:
            try:
                self._kept.popitem(last=False)
            except KeyError:
                return


def _json_address(root: str, request: Request) -> str:
    path = request.scope["path"]
    query = f"?{request.url.query}" if request.url.query else ""
    name = "/cluster" if path == "/" else request.url.path
    return f"{root}{name}.json{query}"


def _banner(state: ClusterState, fault: str, since: float | None) -> dict[str, str] | None:
    """Return what stands above a page that does not show the present."""
    if not (fault or state.fault):
        return None
    if since is None and state.fault and state.snapshot is not None:
        since = state.snapshot.generated_at
    return {"fault": state.fault or fault, "since": iso_time(since) or ""}


def _as_of(state: ClusterState) -> str:
    snapshot = state.snapshot
    if snapshot is None:
        return "nothing is known"
    at = iso_time(snapshot.generated_at) or ""
    text = time.strftime("%H:%M:%S", time.gmtime(snapshot.generated_at))
    return f'as of <time id="as-of" datetime="{at}">{text} UTC</time>'


def error_document(error: CanhazgpuError) -> dict[str, Any]:
    """Return an error as JSON."""
    return {"error": error_text(error), "known": [name for name, _ in known_of(error)]}


def known_of(error: CanhazgpuError) -> list[tuple[str, str]]:
    """Return what there is in place of what an error says is not there, with addresses."""
    if isinstance(error, UnknownNameError):
        place = PLACES.get(error.kind, "/")
        return [(name, f"{place}{segment(name)}") for name in error.known]
    return error.known if isinstance(error, UnknownError) else []
