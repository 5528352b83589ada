"""What `canhazgpu validate` says: a first line for monitoring, and a line for each finding."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from canhazgpu.cli.output import say
from canhazgpu.cli.terminal_text import printable
from canhazgpu.status.findings import Finding, Verdict, worst

WORDS = {
    Verdict.CLEAN: "OK",
    Verdict.UNRESERVED: "WARNING",
    Verdict.UNHEALTHY: "CRITICAL",
    Verdict.CANNOT_TELL: "UNKNOWN",
}
"""The words of Nagios' plugins, whose exit codes these are too."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; `counted` says what there is. `node` is empty where it is not known."""

    node: str
    findings: tuple[Finding, ...]
    counted: str = ""
    published: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst of all findings."""
        return worst(self.findings)

    @property
    def summary(self) -> str:
        """One line that says the worst, without the ``|`` that begins Nagios' figures."""
        bad = [one for one in self.findings if one.verdict is self.verdict is not Verdict.CLEAN]
        text = bad[0].headline if bad else self.counted
        more = sum(one.verdict is not Verdict.CLEAN for one in self.findings) - 1
        if more > 0:
            text += f" (and {more} more)"
        where = f"{self.node}: " if self.node else ""
        return f"GPUS {WORDS[self.verdict]} - {where}{text}".replace("|", "/")


def internal_error(error: Exception) -> Finding:
    """Return an accident as a finding."""
    what = " ".join(printable(f"internal error: {type(error).__name__}: {error}").split())
    return Finding(Verdict.CANNOT_TELL, what, "report it with these words")


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the report; a reader that has gone is no error."""
    try:
        if as_json:
            click.echo(json.dumps(_form(report), indent=2))
        else:
            for line in _lines(report):
                say(line)
    except BrokenPipeError:
        # Whoever reads only the first line still gets the verdict, and no complaint at exit.
        sys.stdout = io.StringIO()


def _lines(report: Report) -> Iterator[str]:
    yield report.summary
    yield from (one.text for one in _by_severity(report.findings))


def _by_severity(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: one.verdict, reverse=True)


def _form(report: Report) -> dict[str, Any]:
    return {
        "node": report.node or None,
        "exit_code": int(report.verdict),
        "verdict": _word(report.verdict),
        "summary": printable(report.summary),
        "published": report.published,
        "findings": [
            {
                "verdict": _word(one.verdict),
                "gpu": one.place or None,
                "uuid": one.uuid or None,
                "what": one.what,
                "user": one.user or None,
                "advice": one.advice,
            }
            for one in _by_severity(report.findings)
        ],
    }


def _word(verdict: Verdict) -> str:
    return verdict.name.lower().replace("_", " ")
