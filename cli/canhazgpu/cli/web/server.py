"""Serve the pages until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from canhazgpu.cli.web.application import make_application
from canhazgpu.cli.web.cluster_state import ClusterReader
from canhazgpu.cli.web.site import Site
from canhazgpu.errors import ConfigError
from canhazgpu.service.status import StatusRequest

if TYPE_CHECKING:
    from canhazgpu.cli.web.sources.port import ClusterSource
    from canhazgpu.config.schema import WebConfig

FULL_UP_TO = 64
"""Of so many nodes everything is read each time; of more what tells the states of their GPUs."""
OTHER_CONNECTIONS = 100
"""Beside those of the viewers that are kept up to date; more are refused."""
ENDING_S = 5


def serve(
    config: WebConfig,
    open_source: Callable[[], ClusterSource],
    release: str,
    tell: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    `tell` takes lines for people: first the address. Raises `ConfigError` for an address that
    cannot be used.
    """
    source = open_source()
    request = StatusRequest(brief_above=FULL_UP_TO)
    reader = ClusterReader(lambda: source.status(request), config.poll_s)
    site = Site(config, reader, open_source, release)
    listening = listen(config)
    server = _Server(
        uvicorn.Config(
            make_application(site, tell),
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=config.max_viewers + OTHER_CONNECTIONS,
            timeout_graceful_shutdown=ENDING_S,
        )
    )
    tell(f"canhazgpu: the page is at {address_of(listening, config)}")
    asyncio.run(server.serve([listening]))


class _Server(uvicorn.Server):
    """A server that ends its streams as soon as it is asked to end, and that ends well then."""

    def handle_exit(self, sig: int, frame: object) -> None:
        # Uvicorn's own would have the signal end this process once everything else has ended.
        live = self.config.app._app.state.live  # type: ignore[union-attr]
        asyncio.get_running_loop().create_task(live.close())
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def listen(config: WebConfig) -> socket.socket:
    """Return the listening socket; raises `ConfigError`."""
    host, _, port = config.listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(128)
    except OSError as exc:
        listening.close()
        raise ConfigError(f"web.listen = {config.listen!r}: {exc.strerror or exc}") from exc
    listening.setblocking(False)
    return listening


def address_of(listening: socket.socket, config: WebConfig) -> str:
    """Return the address that a browser on this host opens."""
    host, port = listening.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what was bound
    return f"http://{f'[{name}]' if ':' in name else name}:{port}{config.root_path}/"
