"""Parse ``store.url``; the parser is our own so that no error message contains a password.

| form | store |
|---|---|
| ``redis://[user:password@]host[:port][/db]`` | one server |
| ``rediss://…`` | the same through TLS, with the options ``ssl_ca_certs``, ``ssl_certfile``, … |
| ``unix://[user:password@]/path[?db=…&password=…]`` | one server's Unix socket |
| ``redis+sentinel://[user:password@]host[:port],…/service[/db]`` | the primary of a service |
| ``redis+cluster://[user:password@]host[:port],…`` | a cluster, found through any of the hosts |
| ``embedded`` | the private server of this node |
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import NoReturn
from urllib.parse import unquote

from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass

EMBEDDED = "embedded"
REDIS_PORT = 6379
SENTINEL_PORT = 26379
MASK = "***"

_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_OPTIONS: dict[str, frozenset[str]] = {
    "redis": frozenset({"db"}),
    "rediss": _TLS_OPTIONS | {"db"},
    "unix": frozenset({"db", "username", "password"}),
    "redis+sentinel": frozenset({"db", "sentinel_username", "sentinel_password"}),
    "redis+cluster": frozenset(),
}
# A secret ends where the next option begins; an unescaped secret may contain "&".
_SECRET_OPTION = re.compile(r"([?&][a-z_]*password=)[^&]*(?:&(?![a-z_]+=)[^&]*)*", re.IGNORECASE)
_USER = re.compile(r"([\w.%-]*):")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """The parts of a store URL; `repr` leaves the passwords out."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: dict[str, str] = field(default_factory=dict, repr=False)


def masked_url(url: str) -> str:
    """Return the URL, even a malformed one, with every possible password as ``***``."""
    scheme, separator, rest = url.rpartition("://") if "://" not in url else url.partition("://")
    if scheme != "unix" or not rest.startswith("/"):
        before, at, after = rest.rpartition("@")
        user = _USER.match(before)
        before = f"{user.group(1)}:{MASK}" if user else MASK
        rest = (before + at if at else "") + _mask_ports(after)
    return scheme + separator + _SECRET_OPTION.sub(rf"\1{MASK}", rest)


def _mask_ports(text: str) -> str:
    """Mask ports that are not numbers: in ``redis://user:password`` the host is missing."""
    end = re.search(r"[/?]", text)
    cut = end.start() if end else len(text)
    return re.sub(r":(?!\d+(?:,|$))[^,\[\]:]+(?=,|$)", f":{MASK}", text[:cut]) + text[cut:]


def parse_store_url(url: str) -> StoreUrl:
    """Return the parts of a URL; raises `ConfigError`, whose text contains no password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _OPTIONS:
        _refuse(url, "it begins with none of " + ", ".join(f"{name}://" for name in _OPTIONS))
    if re.search(r"[\s\x00-\x1f#]", rest):
        _refuse(url, "it holds a space or '#'")
    location, _, query = rest.partition("?")
    netloc, _, path = location.partition("/")
    userinfo, _, hosts = netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    options = _parse_options(url, scheme, query)
    service, db = _split_path(url, scheme, path, options)
    return StoreUrl(
        scheme=scheme,
        hosts=_parse_hosts(url, scheme, hosts),
        path="/" + unquote(path) if scheme == "unix" else "",
        service=service,
        db=db,
        username=unquote(username) or options.pop("username", None),
        password=unquote(password) or options.pop("password", None),
        options=options,
    )


def _refuse(url: str, reason: str) -> NoReturn:
    raise ConfigError(
        f"store.url {masked_url(url)} is malformed: {reason}"
        " (write special characters of a password as %XX)"
    )


def _parse_options(url: str, scheme: str, query: str) -> dict[str, str]:
    options = {}
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        if name not in _OPTIONS[scheme]:
            accepted = ", ".join(sorted(_OPTIONS[scheme])) or "none"
            _refuse(url, f"it has an option that {scheme}:// does not take (accepted: {accepted})")
        options[name] = unquote(value)
    return options


def _parse_hosts(url: str, scheme: str, text: str) -> tuple[tuple[str, int], ...]:
    if scheme == "unix":
        return () if not text else _refuse(url, "unix:// is followed by an absolute path")
    default = SENTINEL_PORT if scheme == "redis+sentinel" else REDIS_PORT
    hosts = tuple(_parse_host(url, part, default) for part in text.split(","))
    if len(hosts) > 1 and scheme in ("redis", "rediss"):
        _refuse(url, f"{scheme}:// takes one host")
    return hosts


def _parse_host(url: str, text: str, default_port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::(.*))?", text)
    if not found:
        _refuse(url, "it names no host, or one that is neither a name nor an address")
    port = found.group(3)
    if port is None:
        return unquote(found.group(1) or found.group(2)), default_port
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        _refuse(url, "a port is a number from 1 to 65535")
    return unquote(found.group(1) or found.group(2)), int(port)


def _split_path(url: str, scheme: str, path: str, options: dict[str, str]) -> tuple[str, int]:
    """Return the sentinels' service name and the database number."""
    db = options.pop("db", "")
    service = ""
    if scheme == "redis+sentinel":
        service, _, path = path.partition("/")
        if not service:
            _refuse(url, "the hosts are followed by /SERVICE, as the sentinels call it")
    if scheme != "unix":
        db = path.strip("/") or db
    if db and not re.fullmatch(r"[0-9]{1,9}", db):
        _refuse(url, "the database is a number")
    if scheme == "redis+cluster" and int(db or 0):
        _refuse(url, "a cluster has database 0 only")
    return unquote(service), int(db or 0)
