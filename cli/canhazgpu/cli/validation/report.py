"""Report of `canhazgpu validate`: a first line for monitoring, then a line for each finding."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.cli.terminal.text import printable
from canhazgpu.service.health import ValidateAnswer
from canhazgpu.status.findings import BY_SEVERITY, Finding, Verdict, worst_verdict

NAGIOS_STATES = {
    Verdict.CLEAN: "OK",
    Verdict.UNRESERVED: "WARNING",
    Verdict.UNHEALTHY: "CRITICAL",
    Verdict.CANNOT_TELL: "UNKNOWN",
}
"""The states of Nagios' plugins; the verdicts' numbers are their exit codes too."""


def overall_verdict(answer: ValidateAnswer) -> Verdict:
    """Return the worst verdict of all findings."""
    return worst_verdict(answer.findings)


def worst_finding(answer: ValidateAnswer) -> Finding | None:
    """Return the first finding of the worst verdict, None where all is clean."""
    verdict = overall_verdict(answer)
    bad = (one for one in answer.findings if one.verdict is verdict is not Verdict.CLEAN)
    return next(bad, None)


def summary_line(answer: ValidateAnswer) -> str:
    """Return one line with the worst finding, without ``|``, which begins Nagios' metrics."""
    verdict = overall_verdict(answer)
    worst = worst_finding(answer)
    text = worst.headline if worst else answer.gpu_counts
    more = sum(one.verdict is not Verdict.CLEAN for one in answer.findings) - 1
    if more > 0:
        text += f" (and {more} more)"
    where = f"{answer.node}: " if answer.node else ""
    return f"GPUS {NAGIOS_STATES[verdict]} - {where}{text}".replace("|", "/")


def internal_error_finding(error: Exception) -> Finding:
    """Return the finding for an exception that nobody expected."""
    what = " ".join(printable(f"internal error: {type(error).__name__}: {error}").split())
    return Finding(Verdict.CANNOT_TELL, what, "report it with these words")


def print_report(answer: ValidateAnswer, *, as_json: bool) -> None:
    """Print the findings; a closed pipe is no error."""
    try:
        if as_json:
            click.echo(json.dumps(_report_to_dict(answer), indent=2))
        else:
            for line in _report_lines(answer):
                print_sanitized(line)
    except BrokenPipeError:
        # A reader of the first line alone gets the verdict, and Python reports no error at exit.
        sys.stdout = io.StringIO()


def _report_lines(answer: ValidateAnswer) -> Iterator[str]:
    yield summary_line(answer)
    told = worst_finding(answer)
    if told is not None and told.advice:
        yield f"-> {told.advice}"
    yield from (one.text for one in _by_severity(answer.findings) if one is not told)


def _by_severity(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: BY_SEVERITY.index(one.verdict), reverse=True)


def _report_to_dict(answer: ValidateAnswer) -> dict[str, Any]:
    return {
        "node": answer.node or None,
        "exit_code": int(overall_verdict(answer)),
        "verdict": _verdict_name(overall_verdict(answer)),
        "summary": printable(summary_line(answer)),
        "published": answer.published,
        "findings": [
            {
                "verdict": _verdict_name(one.verdict),
                "gpu": one.display_index or None,
                "uuid": one.uuid or None,
                "what": one.what,
                "user": one.user or None,
                "advice": one.advice,
            }
            for one in _by_severity(answer.findings)
        ],
    }


def _verdict_name(verdict: Verdict) -> str:
    return verdict.name.lower().replace("_", " ")
