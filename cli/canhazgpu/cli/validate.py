"""`canhazgpu validate`: one look at this node, for people and for node health checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.health_command import HealthCheck
from canhazgpu.cli.health_report import Report, internal_error, print_report
from canhazgpu.cli.options import json_option, memory_threshold_option, threshold_flags
from canhazgpu.errors import CanhazgpuError, StoreError, explain
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.status.coverage import PidSpace
from canhazgpu.status.findings import (
    Expectations,
    Finding,
    Verdict,
    ledger_findings,
    scan_findings,
)
from canhazgpu.status.model import node_status, with_live_scan

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.ledger.port import Ledger, Observation
    from canhazgpu.ledger.values import NodeView


@click.command(cls=HealthCheck)
@memory_threshold_option
@click.option(
    "--expected-gpus",
    type=click.IntRange(min=0),
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

    One scan, and one look at the ledger. The first line says the worst; each further
    line one finding: which GPU, what, and after -> what to do.

    \b
    The exit code:
      0  clean
      1  a GPU is in use without reservation
      2  a GPU is unhealthy or lost, or there are fewer than expected
      3  cannot tell: driver, Redis, configuration, a misspelt flag

    Of several 2 comes first, then 3, then 1. They are Nagios' codes too. Without any GPU it
    cannot tell, except with --expected-gpus 0. A quarantine by hand is told, and fails
    nothing.

    \b
    Examples:
      canhazgpu validate
      canhazgpu validate --expected-gpus 8 --publish
      canhazgpu validate --json | jq -r '.findings[].what'
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = context.obj
    flags = threshold_flags(memory_threshold)
    if expected_gpus is not None:
        flags["validation.expected_gpus"] = str(expected_gpus)
    report = _report(app, flags, may_lack_gpus=expected_gpus == 0, publish=publish)
    if not quiet:
        print_report(report, as_json=as_json)
    context.exit(int(report.verdict))


def _report(app: App, flags: Mapping[str, str], *, may_lack_gpus: bool, publish: bool) -> Report:
    """Return what is found; whatever fails is a finding too."""
    try:
        return _look(app, flags, may_lack_gpus=may_lack_gpus, publish=publish)
    except CanhazgpuError as exc:
        return Report("", (Finding(Verdict.CANNOT_TELL, explain(exc)),))
    except Exception as exc:  # an accident must not look like a verdict
        return Report("", (internal_error(exc),))


def _look(app: App, flags: Mapping[str, str], *, may_lack_gpus: bool, publish: bool) -> Report:
    config = app.effective(flags).config
    node = node_name(config.node, app.environ)
    began = app.clock()
    scanning = app.probe(node, config.validation).start()
    ledger = app.writer(config.store) if publish else app.reader(config.store)
    observation = scanning.observe()
    # The ledger is read after the scan: what is reserved meanwhile is then no unreserved use.
    try:
        before = _view(ledger, node)
        after = _published(ledger, observation, before) if publish else before
    except StoreError as exc:
        found = scan_findings(observation.scan, _expectations(config, None, may_lack_gpus))
        told = Finding(Verdict.CANNOT_TELL, f"unreserved use: {explain(exc)}")
        return Report(node, (*found, told))
    age_s = app.clock() - began
    expected = _expectations(config, before, may_lack_gpus)
    return _judged(after, observation, expected, age_s, published=publish)


def _view(ledger: Ledger, node: str) -> NodeView:
    (view,) = ledger.look([node])
    return view


def _published(ledger: Ledger, observation: Observation, before: NodeView) -> NodeView:
    """Publish what was observed, and return what the ledger then says."""
    ledger.publish_scan(observation)
    return _view(ledger, before.node)


def _expectations(config: Config, view: NodeView | None, may_lack_gpus: bool) -> Expectations:
    return Expectations(
        usage_policy(config.validation),
        config.validation.health_checks,
        config.validation.expected_gpus,
        may_lack_gpus,
        view.scan if view else None,
    )


def _judged(
    view: NodeView,
    observation: Observation,
    expected: Expectations,
    age_s: float,
    *,
    published: bool,
) -> Report:
    scan = observation.scan
    found = scan_findings(scan, expected)
    live = with_live_scan(view, scan, view.read_at - age_s)
    space = PidSpace(boot_id(), pid_namespace())
    status = node_status(live, expected.policy, live=True, space=space)
    found += ledger_findings(status, expected.policy, {one.uuid for one in found if one.uuid})
    reserved = sum(gpu.reservation is not None for gpu in status.gpus)
    counted = f"{len(scan.gpus)} GPUs, {reserved} reserved"
    return Report(view.node, tuple(found), counted, published)
