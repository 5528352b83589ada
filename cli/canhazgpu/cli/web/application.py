"""The application: addresses, errors as pages or JSON, and what lives as long as the server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from canhazgpu.cli.web.answer_cache import StillReadError
from canhazgpu.cli.web.cluster_pages import ClusterPages
from canhazgpu.cli.web.guard import Guard
from canhazgpu.cli.web.history_pages import HistoryPages
from canhazgpu.cli.web.live import LiveEvents
from canhazgpu.cli.web.rendering import HERE, STATIC, segment
from canhazgpu.cli.web.site import (
    BeingReadError,
    NothingKnownError,
    Site,
    UnknownError,
    error_document,
    known_of,
)
from canhazgpu.errors import (
    AgentError,
    CanhazgpuError,
    InputError,
    StoreError,
    UnavailableError,
    UnknownNameError,
    error_text,
    internal_error_text,
)

if TYPE_CHECKING:
    from starlette.requests import Request

OPENAPI = HERE / "openapi.json"
LOOK_AGAIN_S = 2
"""Seconds after which a browser asks again for a page that could not be made yet."""
NOT_NOW = (StoreError, AgentError, UnavailableError, NothingKnownError, StillReadError)
"""Errors that say nothing about what was asked for."""
PAGES = (
    ("the cluster", "/"),
    ("people", "/people"),
    ("the queue", "/queue"),
    ("the report", "/report"),
)


def make_application(site: Site, tell: Callable[[str], None] = lambda _line: None) -> Guard:
    """Return the application of the site, behind its guard; `tell` takes a line for the log."""
    now, history = ClusterPages(site), HistoryPages(site)
    live = LiveEvents(site.reader, site.config.max_viewers)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await live.close()

    async def live_events(_request: Request) -> Response:
        return live.response()

    app = Starlette(
        routes=[
            Route("/", now.cluster),
            Route("/cluster.json", now.cluster_json),
            Route("/summary.json", now.summary_json),
            Route("/nodes/{node:path}.json", now.node_json),
            Route("/nodes/{node:path}", now.node),
            Route("/queue.json", now.queue_json),
            Route("/queue", now.queue),
            Route("/people.json", history.people_json),
            Route("/people", history.people),
            Route("/people/{user:path}.json", history.person_json),
            Route("/people/{user:path}", history.person),
            Route("/jobs/{job:path}.json", history.job_json),
            Route("/jobs/{job:path}", history.job),
            Route("/report.json", history.report_json),
            Route("/report", history.report),
            Route("/find", lambda request: _find(site, request)),
            Route("/live", live_events),
            Route("/metrics", now.metrics),
            Route("/openapi.json", lambda _request: FileResponse(OPENAPI)),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=lifespan,
        exception_handlers={
            CanhazgpuError: lambda request, exc: _error(site, request, exc),
            HTTPException: lambda request, exc: _error(site, request, exc),
            Exception: lambda request, exc: _internal_error(site, request, exc, tell),
        },
    )
    app.add_middleware(GZipMiddleware, minimum_size=2000, compresslevel=4)
    app.state.live = live
    return Guard(app, site.config)


def _find(site: Site, request: Request) -> Response:
    """Lead to the node, the user or the job of this name, in this order."""
    name = request.query_params.get("q", "").strip()[:200]
    snapshot = site.snapshot()
    if not name:
        where = "/"
    elif name in snapshot.by_name:
        where = f"/nodes/{segment(name)}"
    elif name in snapshot.users:
        where = f"/people/{segment(name)}"
    elif name[:1].isdecimal() or name.startswith(("run:", "manual:")):
        where = f"/jobs/{segment(name)}"
    else:
        where = f"/people/{segment(name)}"
    return RedirectResponse(f"{site.config.root_path}{where}", 303)


def _status_of(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, UnknownError | UnknownNameError):
        return 404
    if isinstance(error, InputError):
        return 400
    return 503 if isinstance(error, NOT_NOW) else 500


def _error(site: Site, request: Request, error: Exception) -> Response:
    status = _status_of(error)
    if isinstance(error, HTTPException):
        found: CanhazgpuError = UnknownError(
            f"there is no page {request.url.path[:200]!r} here. There are:", list(PAGES)
        )
    elif isinstance(error, CanhazgpuError):
        found = error
    else:
        raise error
    if request.url.path.endswith(".json"):
        return site.json(error_document(found), status)
    answer = site.page(
        request,
        "error.html.j2",
        lambda: {
            "status": status,
            "text": error_text(found),
            "known": known_of(found),
        },
        status,
    )
    if isinstance(found, BeingReadError | StillReadError):
        # With and without JavaScript: events may come late, too.
        answer.headers["retry-after"] = answer.headers["refresh"] = str(LOOK_AGAIN_S)
    return answer


def _internal_error(
    site: Site, request: Request, error: Exception, tell: Callable[[str], None]
) -> Response:
    tell(f"{request.method} {request.url.path[:200]}: {internal_error_text(error)}")
    return _error(site, request, CanhazgpuError(internal_error_text(error)))
