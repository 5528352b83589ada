"""The configuration of the page: section ``web``."""

from __future__ import annotations

import re

from canhazgpu.config.key import at_least, key, one_of, word_list
from canhazgpu.frozen_dataclass import dataclass

DEFAULT_LISTEN = "127.0.0.1:8090"
DEFAULT_POLL_S = 5.0
DEFAULT_MAX_VIEWERS = 200
LOOPBACK = ("127.0.0.1", "::1")


def listen_address(value: str) -> str | None:
    """Accept ``ADDRESS:PORT``; an IPv6 address is in brackets."""
    host, _, port = value.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    address = host[1:-1] if is_bracketed else host
    is_good = port.isascii() and port.isdecimal() and 0 <= int(port) < 65536
    return (
        None
        if is_good and is_bracketed == (":" in address) and _is_address(address)
        else 'ADDRESS:PORT, as in "127.0.0.1:8090"'
    )


def addresses(value: tuple[str, ...]) -> str | None:
    """Accept a list of IP addresses."""
    return None if all(map(_is_address, value)) else 'a list of IP addresses, as in ["10.0.0.1"]'


def header_name_or_empty(value: str) -> str | None:
    """Accept the name of an HTTP header, or none."""
    good = re.fullmatch(r"[A-Za-z0-9-]{0,64}", value)
    return None if good else 'the name of a header, as in "X-Remote-User", or empty'


def url_path_or_empty(value: str) -> str | None:
    """Accept a path below which a proxy serves the page, or none."""
    good = value == "" or re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value)
    return None if good else 'a path without a slash at its end, as in "/gpus", or empty'


def _is_address(text: str) -> bool:
    import ipaddress  # noqa: PLC0415 - every hook reads this module

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Section ``web``: what `canhazgpu web` serves, and to whom. Read when it starts."""

    listen: str = key(
        DEFAULT_LISTEN,
        "address and port of the page; whoever reaches them sees what 'canhazgpu status' shows",
        check=listen_address,
    )
    source: str = key(
        "auto",
        "what is read: store (with this user's login), agent (that of this host, which reads the"
        " store) or auto (the store, where this user has a login; else the agent)",
        check=one_of("auto", "store", "agent"),
    )
    hosts: tuple[str, ...] = key(
        (),
        "names by which browsers reach the page, beside localhost and the address itself; a request"
        " for another name is refused",
        check=word_list,
    )
    root_path: str = key(
        "",
        "path below which a proxy serves the page, and which it takes off",
        check=url_path_or_empty,
    )
    user_header: str = key(
        "",
        "header in which a proxy tells the user's name, for 'my GPUs'; empty: no name is known",
        check=header_name_or_empty,
    )
    trusted_proxies: tuple[str, ...] = key(
        LOOPBACK,
        "addresses from which that header is believed; from others it is ignored",
        check=addresses,
    )
    poll_s: float = key(
        DEFAULT_POLL_S,
        "time between two reads of the cluster, in seconds, while somebody looks; a cluster that"
        " takes long to read is read less often",
        check=at_least(1),
    )
    max_viewers: int = key(
        DEFAULT_MAX_VIEWERS,
        "pages that are kept up to date at once; more are shown, and read again by themselves",
        check=at_least(1),
    )
