"""`canhazgpu validate`: check this node once, for people and for node health checks."""

from __future__ import annotations

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option, memory_threshold_option
from canhazgpu.cli.options.gpu_request import MAX_COUNT
from canhazgpu.cli.validation.report import internal_error_finding, overall_verdict, print_report
from canhazgpu.cli.validation.verdict_command import VerdictCommand
from canhazgpu.errors import CanhazgpuError, advice_for
from canhazgpu.service.health import ValidateAnswer, ValidateRequest
from canhazgpu.status.findings import Finding, Verdict

VERDICT_CODES = exit_codes(
    others={
        int(Verdict.CLEAN): "clean",
        int(Verdict.UNRESERVED): "a GPU is in use without reservation",
        int(Verdict.UNHEALTHY): "a GPU is unhealthy or lost, or there are fewer than expected",
        int(Verdict.CANNOT_TELL): "cannot tell: driver, Redis, configuration, a misspelt flag",
    }
)


@click.command(cls=VerdictCommand, epilog=VERDICT_CODES)
@memory_threshold_option
@click.option(
    "--expected-gpus",
    type=click.IntRange(0, MAX_COUNT),
    metavar="N",
    help="GPUs this node should have; 0 says that it may have none.  "
    "[default: validation.expected_gpus]",
)
@click.option(
    "--publish",
    is_flag=True,
    help="Store the scan for everybody; quarantine unhealthy GPUs and lift what has cleared.",
)
@click.option("--quiet", is_flag=True, help="Print nothing: the exit code tells.")
@json_option
@click.pass_context
def validate(
    context: click.Context,
    memory_threshold: int | None,
    expected_gpus: int | None,
    publish: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check this node's GPUs once, for people and for node health checks.

    One scan, and one look at the ledger. The first line says the worst, and after ->
    below it what to do; each further line is another finding.

    Of several exit codes 2 comes first, then 3, then 1. They are Nagios' codes too.
    Without any GPU it cannot tell, except with --expected-gpus 0. A quarantine by hand
    is told, and fails nothing.

    \b
    Examples:
      canhazgpu validate
      canhazgpu validate --expected-gpus 8 --publish
      canhazgpu validate --json | jq -r '.findings[].what'
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = context.obj
    answer = _validate(app, ValidateRequest(memory_threshold, expected_gpus, publish))
    if not quiet:
        print_report(answer, as_json=as_json)
    context.exit(int(overall_verdict(answer)))


def _validate(app: App, request: ValidateRequest) -> ValidateAnswer:
    """Return the findings; an error becomes a finding too."""
    try:
        return app.service().validate(request)
    except CanhazgpuError as exc:
        finding = Finding(Verdict.CANNOT_TELL, str(exc), advice_for(exc).next_step)
        return ValidateAnswer("", (finding,))
    except Exception as exc:  # no bug may look like another verdict
        return ValidateAnswer("", (internal_error_finding(exc),))
