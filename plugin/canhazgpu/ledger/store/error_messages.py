"""Turn errors of redis-py and of the operating system into one line for the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import exceptions as foreign
from redis.sentinel import MasterNotFoundError

from canhazgpu.errors import CanhazgpuError
from canhazgpu.ledger.store.login import address_with_login
from canhazgpu.ledger.store.url import EMBEDDED, MASK, masked_url, parse_store_url

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig


_DENIALS = ("NOPERM", "ACL failure", "The user executing the script can't")
"""In the text of a refusal for want of rights; the others are those of a script's command."""


def store_error_message(exc: Exception, store: StoreConfig) -> str | None:
    """Return the message for the exception, without passwords; None for other exceptions."""
    if not isinstance(exc, OSError | foreign.RedisError | foreign.RedisClusterException):
        return None
    return _masked(_message(exc, store), store)


def _message(exc: Exception, store: StoreConfig) -> str:
    name = _store_name(store)
    if isinstance(exc, foreign.TimeoutError | TimeoutError):
        return f"no answer from the store at {name} within {store.timeout_s:g} s"
    if isinstance(exc, foreign.BusyLoadingError):
        return f"the store at {name} is still loading its data; try again in a moment"
    if isinstance(exc, foreign.AuthenticationError):
        return f"the store at {name} refused to log in: {exc} ({_login_hint(store)})"
    if isinstance(exc, MasterNotFoundError):
        # redis-py's message lists the repr of its own objects.
        return f"no sentinel of {name} answers with a primary of that service"
    if isinstance(exc, OSError | foreign.ConnectionError):
        return f"cannot reach the store at {name}: {_root_cause(exc)}"
    return f"the store at {name} {_server_error_message(exc, store)}"


def _server_error_message(exc: Exception, store: StoreConfig) -> str:
    """Return the message for an error reply; a script wraps the error, so its text is read, too."""
    text = str(exc)
    if isinstance(exc, foreign.NoPermissionError) or any(word in text for word in _DENIALS):
        return f"denies this: {_rights_of_login(store)} ({text})"
    if isinstance(exc, foreign.ReadOnlyError) or "READONLY" in text:
        return "is a read-only replica: store.url must name the primary"
    if isinstance(exc, foreign.OutOfMemoryError) or text.startswith("OOM"):
        return "is out of memory: raise its maxmemory, or shorten store.history_days"
    return f"answered with an error: {text}"


def _rights_of_login(store: StoreConfig) -> str:
    try:
        user = (address_with_login(store).username or "") if store.url != EMBEDDED else ""
    except CanhazgpuError:
        user = ""
    node = user.removeprefix(f"{store.prefix}-node-")
    if node in ("", user):
        return "this user may only read the ledger"
    return f"the login of {node} changes that node alone; act there, or as the administrator"


def _store_name(store: StoreConfig) -> str:
    return f"{store.embedded_dir} (embedded)" if store.url == EMBEDDED else masked_url(store.url)


def _login_hint(store: StoreConfig) -> str:
    if store.url == EMBEDDED:
        return f"the server was not started with {store.embedded_dir}/secret: stop it"
    if store.login_file:
        return f"store.login_file {store.login_file} has to hold USER:PASSWORD"
    return "set user and password in store.url, as in redis://USER:PASSWORD@HOST:PORT/0"


def _root_cause(exc: BaseException) -> str:
    """Return the system's message that redis-py wrapped, as ``Connection refused``."""
    link: BaseException | None = exc
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return str(exc)


def _masked(text: str, store: StoreConfig) -> str:
    """Mask passwords: a server quotes the arguments of a command that it does not know."""
    for address in (parse_store_url, lambda _: address_with_login(store)):
        try:
            url = address(store.url)
        except CanhazgpuError:
            continue
        for secret in (url.password, url.options.get("sentinel_password")):
            text = text.replace(secret, MASK) if secret else text
    return text
