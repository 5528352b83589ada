"""`canhazgpu hooks check`: what is wrong on this node, and how to fix it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.hook_site.collect import collect_site_state
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.hooks import slurm_conf_option, slurm_dir_option
from canhazgpu.cli.terminal.text import printable
from canhazgpu.schedulers.slurm.site.checks.registry import (
    Finding,
    checks_left_out,
    run_checks,
    worst_severity,
)

EXIT_ERRORS = 2
EXIT_WARNINGS = 1
SEVERITY_COLOURS = {"error": "red", "warning": "yellow", "ok": "green"}


@click.command(
    epilog=exit_codes(
        others={
            0: "no errors found",
            EXIT_WARNINGS: "warnings found, with --strict; or any other error",
            EXIT_ERRORS: "errors found; or wrong options or values",
        }
    )
)
@slurm_dir_option
@slurm_conf_option
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings.")
@json_option
@click.pass_context
def check(
    context: click.Context, *, slurm_dir: str, slurm_conf: str | None, strict: bool, as_json: bool
) -> None:
    """Look for everything on this node that would keep the hooks from working.

    Runs as root, on a node with GPUs, and changes nothing. What is read of GPUs and store
    is read as a hook reads it, without the shell's environment.

    \b
    Examples:
      canhazgpu hooks check
      canhazgpu hooks check --json --strict
      canhazgpu --config /etc/canhazgpu/hooks.toml hooks check
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = context.obj
    findings = run_checks(collect_site_state(app, slurm_dir, slurm_conf))
    click.echo(
        json.dumps(_findings_to_dict(findings), indent=2) if as_json else _findings_text(findings)
    )
    worst = worst_severity(findings)
    if worst == "error":
        context.exit(EXIT_ERRORS)
    if worst == "warning" and strict:
        context.exit(EXIT_WARNINGS)


def _findings_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.id) for finding in findings)
    lines = []
    for finding in findings:
        label = click.style(f"{finding.severity:7}", fg=SEVERITY_COLOURS[finding.severity])
        found = printable(finding.found)
        wanted = f"; should be: {printable(finding.wanted)}" if finding.wanted else ""
        lines.append(f"{label} {finding.id:{width}} {found}{wanted}")
        if finding.fix:
            lines.append(f"{'':7} {'':{width}} {printable(finding.fix)}")
    left_out = checks_left_out(findings)
    if left_out:
        lines += ["", f"not checked, as what they need is not known: {', '.join(left_out)}"]
    return "\n".join((*lines, "", _summary_line(findings)))


def _summary_line(findings: Sequence[Finding]) -> str:
    counts = {one: sum(finding.severity == one for finding in findings) for one in SEVERITY_COLOURS}
    return f"{counts['error']} errors, {counts['warning']} warnings, {counts['ok']} checks passed"


def _findings_to_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "result": worst_severity(findings),
        "findings": [
            {key: value or None for key, value in asdict(finding).items()} for finding in findings
        ],
        "not_checked": list(checks_left_out(findings)),
    }
