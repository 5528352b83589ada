"""The pages that read the history: people, one user, a job, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from canhazgpu.cli.terminal.explanation import answer_lines, answer_to_dict, unknown_owner_text
from canhazgpu.cli.web.answer_cache import MAX_WAIT_S, PAGE_WAIT_S
from canhazgpu.cli.web.charts import chart_of
from canhazgpu.cli.web.cluster_pages import MAX_KNOWN, queue_rows, row_of
from canhazgpu.cli.web.cluster_view import MAX_VALUE
from canhazgpu.cli.web.job_timeline import spans_of, timelines_of
from canhazgpu.cli.web.people import people_of, people_to_dict
from canhazgpu.cli.web.rendering import segment
from canhazgpu.cli.web.site import NothingKnownError, UnknownError
from canhazgpu.errors import AgentError, InputError, StoreError, error_text
from canhazgpu.report.export import report_to_dict
from canhazgpu.service.history import ExplainRequest, ReportRequest
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.suggestion import closest
from canhazgpu.status.user_filter import User

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from canhazgpu.cli.web.answer_cache import Answer
    from canhazgpu.cli.web.people import Person
    from canhazgpu.cli.web.site import Site
    from canhazgpu.report.totals import Report
    from canhazgpu.service.history import ExplainAnswer, ReportAnswer

PEOPLE_DAYS = 7
DAYS = (1, 7, 30, 90)
"""What the report's page offers; any number of days can be asked for."""
MAX_DAYS = 3650
EXPLAINED_S = 30 * 86400.0
MAX_ROWS = 500
"""Rows of a table of a report."""


class HistoryPages:
    """Answers requests about people, jobs and the report; see `canhazgpu.cli.web.site`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def people(self, request: Request) -> Response:
        """Return the page of who holds and wastes what."""
        people, fault = self._people()
        return self._site.page(
            request,
            "people.html.j2",
            lambda: {
                "people": people[:MAX_ROWS],
                "count": len(people),
                "days": PEOPLE_DAYS,
                "knows_use": any(one.mean_utilization is not None for one in people),
            },
            fault=fault,
        )

    def people_json(self, _request: Request) -> Response:
        """Return the same as JSON."""
        state = self._site.state(waits=True)
        people, fault = self._people(MAX_WAIT_S)
        error = state.fault or fault or None
        at = state.snapshot.generated_at if state.snapshot else None
        return self._site.json(people_to_dict(at, people, PEOPLE_DAYS, error))

    def person(self, request: Request) -> Response:
        """Return the page of one user."""
        person, fault = self._person(request.path_params["user"])
        chosen = StatusFilter(users=(User(None, person.user),))
        nodes = chosen.apply(self._site.snapshot().nodes)
        return self._site.page(
            request,
            "person.html.j2",
            lambda: {
                "person": person,
                "nodes": [(one, [row_of(gpu, one) for gpu in one.gpus]) for one in nodes],
                "queue": queue_rows(nodes),
                "days": PEOPLE_DAYS,
            },
            fault=fault,
        )

    def person_json(self, request: Request) -> Response:
        """Return the same as JSON."""
        state = self._site.state(waits=True)
        person, fault = self._person(request.path_params["user"], MAX_WAIT_S)
        at = state.snapshot.generated_at if state.snapshot else None
        error = state.fault or fault or None
        return self._site.json(people_to_dict(at, [person], PEOPLE_DAYS, error))

    def job(self, request: Request) -> Response:
        """Return the timeline of a job, a run or a manual reservation."""
        found = self._job(request)
        answer = found.value
        fault = error_text(answer.fault) if answer.fault else found.fault
        return self._site.page(
            request,
            "job.html.j2",
            lambda: {
                "answer": answer,
                "lines": list(answer_lines(answer)),
                "next": answer_to_dict(answer)["next"],
                "timelines": timelines_of(answer),
                "spans": spans_of(answer),
                "holdings": answer.holdings,
            },
            fault=fault,
            since=found.read_at if found.fault else None,
            version=found.read_at,
        )

    def job_json(self, request: Request) -> Response:
        """Return it in the form of ``explain --json``."""
        found = self._job(request, MAX_WAIT_S)
        answer = found.value
        error = error_text(answer.fault) if answer.fault else found.fault or None
        document = {**answer_to_dict(answer), "error": error}
        return self._site.json(document, read_at=found.read_at)

    def report(self, request: Request) -> Response:
        """Return who used how many GPU hours, as charts and tables."""
        days = _days(request)
        answer = self._report(days)
        found = answer.value.report
        return self._site.page(
            request,
            "report.html.j2",
            lambda: {
                "days": days,
                "offered": DAYS,
                "kept": answer.value.history_days,
                "report": found,
                "users": chart_of(found.by_user),
                "nodes": chart_of(found.by_node),
                "rows": list(found.by_user.items())[:MAX_ROWS],
            },
            fault=answer.fault,
            since=answer.read_at if answer.fault else None,
            version=answer.read_at,
        )

    def report_json(self, request: Request) -> Response:
        """Return the report in the form of ``report --json``."""
        found = self._report(_days(request), MAX_WAIT_S)
        document = {**report_to_dict(found.value.report), "error": found.fault or None}
        return self._site.json(document, read_at=found.read_at)

    def _report(self, days: int, wait_s: float = PAGE_WAIT_S) -> Answer[ReportAnswer]:
        return self._site.reports.get(
            days, lambda: self._site.open_source().report(ReportRequest(days)), wait_s
        )

    def _people(self, wait_s: float = PAGE_WAIT_S) -> tuple[list[Person], str]:
        """Return everybody; without the history only what the last state says, and why."""
        report: Report | None = None
        fault = ""
        try:
            found = self._report(PEOPLE_DAYS, wait_s)
            report, fault = found.value.report, found.fault
        except (StoreError, AgentError) as exc:
            fault = error_text(exc)
        return people_of(self._site.snapshot().nodes, report), fault

    def _person(self, name: str, wait_s: float = PAGE_WAIT_S) -> tuple[Person, str]:
        people, fault = self._people(wait_s)
        found = next((one for one in people if one.user == name), None)
        if found is not None:
            return found, fault
        names = [one.user for one in people]
        text = f"{name!r} holds, uses or awaits no GPU, and did not in {PEOPLE_DAYS} days."
        known = [(one, f"/people/{segment(one)}") for one in names[:MAX_KNOWN]]
        raise UnknownError(f"{text} {closest(name, names)}".strip(), known)

    def _job(self, request: Request, wait_s: float = PAGE_WAIT_S) -> Answer[ExplainAnswer]:
        subject = request.path_params["job"]
        cluster = request.query_params.get("cluster", "")[:MAX_VALUE]
        asked = ExplainRequest(subject[:MAX_VALUE], EXPLAINED_S, (), cluster)
        try:
            found = self._site.jobs.get(asked, lambda: self._explained(asked), wait_s)
        except InputError as exc:
            raise UnknownError(str(exc).replace("--cluster ", "?cluster="), self._jobs()) from exc
        if found.value.is_known or found.value.scheduler is not None:
            return found
        raise UnknownError(unknown_owner_text(found.value, "30d"), self._jobs())

    def _explained(self, asked: ExplainRequest) -> ExplainAnswer:
        """Return the answer; raises the error that left too little of it."""
        answer = self._site.open_source().explain(asked)
        if answer.fault is not None:
            tells_something = answer.is_known or answer.scheduler is not None
            if not tells_something or self._site.jobs.knows(asked):
                raise answer.fault
        return answer

    def _jobs(self) -> list[tuple[str, str]]:
        """Return some of the owners that hold GPUs now, with their addresses."""
        try:
            nodes = self._site.snapshot().nodes
        except NothingKnownError:
            return []
        found: dict[str, Any] = {}
        for node in nodes:
            for gpu in node.gpus:
                for one in gpu.holders:
                    found.setdefault(one.claim.job_id or one.claim.owner, None)
            if len(found) >= MAX_KNOWN:
                break
        return [(one, f"/jobs/{segment(one)}") for one in list(found)[:MAX_KNOWN]]


def _days(request: Request) -> int:
    text = request.query_params.get("days", str(PEOPLE_DAYS))
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:5]) <= MAX_DAYS):
        raise InputError(f"{text[:20]!r} is no number of days, from 1 to {MAX_DAYS}")
    return int(text[:5])
