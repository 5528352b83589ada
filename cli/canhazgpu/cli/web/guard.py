"""What every answer has and every request must have: headers, a known host, a reading method."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from canhazgpu.cli.terminal.text import printable

if TYPE_CHECKING:
    from canhazgpu.config.schema import WebConfig

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
METHODS = ("GET", "HEAD")
MAX_USER = 256
"""Characters of a name in the header; no system has longer ones."""


class Guard:
    """The outermost part of the application.

    It refuses what is no GET or HEAD, and requests for another host than the page's: a foreign page
    whose name leads to this address must not read it (DNS rebinding).
    """

    def __init__(self, app: Application, config: WebConfig) -> None:
        self._app = app
        self._hosts = {one.lower() for one in config.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        if scope["method"] not in METHODS:
            refused = PlainTextResponse(
                "these pages can only be read\n", 405, {"allow": ", ".join(METHODS)}
            )
            await refused(scope, receive, send_guarded)
        elif not self._is_known(Headers(scope=scope).get("host", "")):
            refused = PlainTextResponse(
                "this page has another name: an administrator adds names with web.hosts\n", 421
            )
            await refused(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _is_known(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        name = name.lower()
        if name in ("localhost", *self._hosts):
            return True
        try:
            # An address leads here only as itself: no foreign page has it for a name.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def user_of(config: WebConfig, client: tuple[str, int] | None, headers: Headers) -> str:
    """Return the name that a trusted proxy tells, "" for none."""
    if not config.user_header or client is None or client[0] not in config.trusted_proxies:
        return ""
    # Two such headers are no word of the proxy's alone.
    given = headers.getlist(config.user_header)
    return printable(given[0].strip()[:MAX_USER]) if len(given) == 1 else ""
