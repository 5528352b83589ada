"""`canhazgpu web`: serve pages that show the cluster."""

from __future__ import annotations

import importlib.util
import shlex
import sys

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.version import VERSION
from canhazgpu.errors import ConfigError, StoreError

NEEDED = ("jinja2", "prometheus_client", "starlette", "uvicorn")
"""What the extra ``web`` brings."""


@click.command("web", epilog=exit_codes(StoreError, others={0: "ended by SIGTERM or Ctrl-C"}))
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Serve the page there.  [default: web.listen, 127.0.0.1:8090]",
)
@click.option(
    "--unit",
    is_flag=True,
    help="Print a unit for systemd that serves the pages, with this Python and configuration.",
)
@click.pass_obj
def web(app: App, listen: str | None, unit: bool) -> None:
    """Serve pages that show the cluster, its nodes, jobs, people, queue and report.

    They show what 'canhazgpu status', 'explain', 'queue' and 'report' show, to whoever can reach
    them, and change nothing. All of it is also there as JSON, and metrics for Prometheus. The
    cluster is read once for all viewers and only while somebody looks; no GPU is scanned. It runs
    in the foreground, until SIGTERM, on any host that reaches the store, and needs no root.

    It reads the store with this user's login. Where this user cannot read the configuration or
    store.login_file, or nobody says where the store is, it asks this host's agent, as
    'canhazgpu status' does. web.source chooses one of them.

    Only this host reaches the page by default. A proxy before it lets others in, and says who they
    are: see web.hosts, web.user_header and docs/web.md.

    \b
    Examples:
      canhazgpu web
      canhazgpu web --listen 127.0.0.1:9000
      canhazgpu --set web.poll_s=15 web
      canhazgpu web --unit > /etc/systemd/system/canhazgpu-web.service
    """  # noqa: D301 - click reads the character: keep these lines
    _require_packages()
    if unit:
        _print_unit(app)
        return
    from canhazgpu.cli.web.server import serve  # noqa: PLC0415 - the extra brings what it imports
    from canhazgpu.cli.web.sources.agent_source import AgentSource  # noqa: PLC0415 - as above
    from canhazgpu.cli.web.sources.choice import choose_source  # noqa: PLC0415

    def tell(line: str) -> None:
        click.echo(line, err=True)

    overrides = {**app.overrides, **({"web.listen": listen} if listen else {})}
    choice = choose_source(app.environ, app.config_file, overrides)
    if choice.agent:
        tell(f"canhazgpu: the page asks the agent at {choice.agent}: {choice.why}")
        source = AgentSource(choice.agent)
        serve(choice.config.web, lambda: source, VERSION, tell)
        return
    # As on a host without GPUs: nothing is scanned for a page that is read again and again.
    reader = app.with_options(app.config_file, {**overrides, "agent.role": "reader"})
    serve(choice.config.web, reader.service, VERSION, tell)


def _print_unit(app: App) -> None:
    from canhazgpu.templates.web_unit import web_unit_text  # noqa: PLC0415 - jinja2 takes 40 ms

    effective = app.effective_config()
    file = None if effective.file is None else str(effective.file.absolute())
    through_agent = effective.config.web.source == "agent"
    login_file = "" if through_agent else effective.config.store.login_file
    click.echo(
        web_unit_text(sys.executable, file, login_file, through_agent=through_agent), nl=False
    )


def _require_packages() -> None:
    """Raise `ConfigError` where the extra is not installed."""
    missing = [one for one in NEEDED if importlib.util.find_spec(one) is None]
    if missing:
        command = shlex.join([sys.executable, "-m", "pip", "install", "canhazgpu[web]"])
        raise ConfigError(
            f"the page needs {', '.join(missing)}, which are not installed: {command}"
        )
