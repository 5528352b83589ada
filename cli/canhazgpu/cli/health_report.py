"""What `canhazgpu validate` says: a first line for monitoring, and a line for each finding."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from canhazgpu.cli.output import say
from canhazgpu.cli.terminal_text import printable
from canhazgpu.service.health import ValidateAnswer
from canhazgpu.status.findings import Finding, Verdict, worst

WORDS = {
    Verdict.CLEAN: "OK",
    Verdict.UNRESERVED: "WARNING",
    Verdict.UNHEALTHY: "CRITICAL",
    Verdict.CANNOT_TELL: "UNKNOWN",
}
"""The words of Nagios' plugins, whose exit codes these are too."""


def verdict_of(answer: ValidateAnswer) -> Verdict:
    """Return the worst of all findings."""
    return worst(answer.findings)


def summary_of(answer: ValidateAnswer) -> str:
    """Return one line that says the worst, without the ``|`` that begins Nagios' figures."""
    verdict = verdict_of(answer)
    bad = [one for one in answer.findings if one.verdict is verdict is not Verdict.CLEAN]
    text = bad[0].headline if bad else answer.counted
    more = sum(one.verdict is not Verdict.CLEAN for one in answer.findings) - 1
    if more > 0:
        text += f" (and {more} more)"
    where = f"{answer.node}: " if answer.node else ""
    return f"GPUS {WORDS[verdict]} - {where}{text}".replace("|", "/")


def internal_error(error: Exception) -> Finding:
    """Return an accident as a finding."""
    what = " ".join(printable(f"internal error: {type(error).__name__}: {error}").split())
    return Finding(Verdict.CANNOT_TELL, what, "report it with these words")


def print_report(answer: ValidateAnswer, *, as_json: bool) -> None:
    """Print what was found; a reader that has gone is no error."""
    try:
        if as_json:
            click.echo(json.dumps(_form(answer), indent=2))
        else:
            for line in _lines(answer):
                say(line)
    except BrokenPipeError:
        # Whoever reads only the first line still gets the verdict, and no complaint at exit.
        sys.stdout = io.StringIO()


def _lines(answer: ValidateAnswer) -> Iterator[str]:
    yield summary_of(answer)
    yield from (one.text for one in _by_severity(answer.findings))


def _by_severity(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: one.verdict, reverse=True)


def _form(answer: ValidateAnswer) -> dict[str, Any]:
    return {
        "node": answer.node or None,
        "exit_code": int(verdict_of(answer)),
        "verdict": _word(verdict_of(answer)),
        "summary": printable(summary_of(answer)),
        "published": answer.published,
        "findings": [
            {
                "verdict": _word(one.verdict),
                "gpu": one.place or None,
                "uuid": one.uuid or None,
                "what": one.what,
                "user": one.user or None,
                "advice": one.advice,
            }
            for one in _by_severity(answer.findings)
        ],
    }


def _word(verdict: Verdict) -> str:
    return verdict.name.lower().replace("_", " ")
