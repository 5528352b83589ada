"""Turn errors of redis-py and of the operating system into one line for the user, and a next step.

Error replies are known by their code, which a script's error begins with, too. Texts differ by
release: those of Redis 6.2 to 7.0, Redis 7.2 and Valkey are read.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

from redis import exceptions as foreign
from redis.sentinel import MasterNotFoundError

from canhazgpu.errors import CanhazgpuError, StoreError
from canhazgpu.ledger.embedded.directory import WRITER
from canhazgpu.ledger.store.login import address_with_login
from canhazgpu.ledger.store.messages.redis_cli import redis_cli_command
from canhazgpu.ledger.store.url import EMBEDDED, MASK, masked_url, parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from canhazgpu.config.schema import StoreConfig


class _Message(NamedTuple):
    """What happened, and the next step; no step where the text says it."""

    text: str
    next_step: str = ""


def store_error(exc: Exception, store: StoreConfig) -> StoreError | None:
    """Return the error for the exception, without passwords; None for other exceptions."""
    if not isinstance(exc, OSError | foreign.RedisError | foreign.RedisClusterException):
        return None
    text, next_step = _message(exc, store)
    return StoreError(_masked(text, store), next_step=_masked(next_step, store))


def _message(exc: Exception, store: StoreConfig) -> _Message:
    name = _store_name(store)
    if isinstance(exc, foreign.TimeoutError | TimeoutError):
        text = f"no answer from the store at {name} within {store.timeout_s:g} s"
        return _Message(text, _silent_server_step(store))
    if isinstance(exc, foreign.BusyLoadingError):
        return _Message(f"the store at {name} is still loading its data; try again in a moment")
    if isinstance(exc, foreign.AuthenticationError):
        reason = str(exc).rstrip(".")
        if store.url == EMBEDDED:
            reason = f"it was not started with {store.embedded_dir}/secret"
        return _Message(f"the store at {name} refused to log in: {reason}", _login_step(store))
    if isinstance(exc, MasterNotFoundError):
        # redis-py's message lists the repr of its own objects.
        text = f"no sentinel of {name} answers with a primary of that service"
        return _Message(text, f"ask one: '{redis_cli_command(store)}'")
    if isinstance(exc, OSError | foreign.ConnectionError):
        return _connection_message(exc, store)
    reply = _reply_message(str(exc), exc, store)
    return reply._replace(text=f"the store at {name} {reply.text}")


def _connection_message(exc: Exception, store: StoreConfig) -> _Message:
    text = f"cannot reach the store at {_store_name(store)}: {_root_cause(exc)}"
    if store.url == EMBEDDED:
        return _Message(text, _silent_server_step(store))
    # redis-py says the second where the server's refusal comes before the first command.
    if "max number of clients" in str(exc) or "Connection not ready" in str(exc):
        text = text.replace("Connection not ready", "it takes no more clients, or hangs up at once")
        return _Message(
            text,
            "raise the server's maxclients, to two for each node (three where agent.orders is"
            " await) and 100 more, or find who holds its connections",
        )
    causes = set(map(type, _causes(exc)))
    if socket.gaierror in causes:
        return _Message(text, "correct the host in store.url, or this host's resolver")
    if any(issubclass(one, ssl.SSLError) for one in causes):
        return _Message(text, "correct the certificates, or the options of store.url about TLS")
    return _Message(text, f"start it, or correct store.url; '{redis_cli_command(store)}' tries it")


def _reply_message(text: str, exc: Exception, store: StoreConfig) -> _Message:
    """Return the message for an error reply, to follow the store's name."""
    for is_meant, message in _REPLIES:
        if is_meant(text, exc):
            return message(text, store)
    return _Message(f"answered with an error: {text}", "see the server's log")


def _denied(text: str, store: StoreConfig) -> _Message:
    named = re.match(r"User (\S+) has no permissions", text)
    user = named[1] if named else _user_name(store)
    command = _missing_command(text)
    node = user.removeprefix(f"{store.prefix}-node-")
    if node != user and not command:
        return _Message(
            f"denies this: the login of {node} changes that node alone ({text})",
            "act there, or with the administrator's login: --set store.login_file=FILE",
        )
    right = f"the right +{command}" if command else _missing_right(text, store.prefix)
    if store.url == EMBEDDED:
        return _Message(
            f"denies this to its user {user}, who lacks {right} ({text})",
            f"only root, or the owner of {store.embedded_dir}, may change the ledger",
        )
    return _Message(
        f"denies this to its user {user}, who lacks {right} ({text})",
        "let this user of the host read store.login_file, or give the Redis user that right:"
        " 'canhazgpu store acl --check' compares",
    )


def _missing_command(text: str) -> str:
    """Return the command that the reply says is not allowed, "" if it names none."""
    found = re.search(r"permissions? to run the '([^']+)' command", text)
    return found[1] if found else ""


def _missing_right(text: str, prefix: str) -> str:
    """Return the right of Redis' ACL that the reply says is missing."""
    if "channel" in text:
        return f"the right to its channels (&{prefix}:*)"
    if "key" in text:
        return f"the right to its keys, or to change them (~{prefix}:*)"
    return "the right to a command of a script (+@write and +@read)"


def _is_denial(text: str, exc: Exception) -> bool:
    words = ("ACL failure", "NOPERM", "The user executing the script can't")
    return isinstance(exc, foreign.NoPermissionError) or any(one in text for one in words)


def _replica(_text: str, store: StoreConfig) -> _Message:
    return _Message(
        "is a read-only replica: store.url must name the primary",
        f"'{redis_cli_command(store, 'role')}' names it",
    )


def _out_of_memory(_text: str, store: StoreConfig) -> _Message:
    text = "is out of memory, and takes no changes"
    if store.url != EMBEDDED:
        # A full server takes no change that would shorten the history, either.
        return _Message(
            text, "raise its maxmemory; a shorter store.history_days then keeps it smaller"
        )
    login = f'-s {store.embedded_dir}/server.sock --user {WRITER} --pass "$(cat'
    return _Message(
        text,
        f'root shortens the history: redis-cli {login} {store.embedded_dir}/secret)" xtrim'
        f" '{store.prefix}:{{NODE}}:history' maxlen 1000; then shorten store.history_days",
    )


def _is_code(code: str, kind: type[Exception] | None = None) -> Callable[[str, Exception], bool]:
    return lambda text, exc: (
        code in text.split()[:1] or (kind is not None and isinstance(exc, kind))
    )


def _says(text: str, next_step: str = "") -> Callable[[str, StoreConfig], _Message]:
    return lambda _text, _store: _Message(text, next_step)


_REPLIES: tuple[
    tuple[Callable[[str, Exception], bool], Callable[[str, StoreConfig], _Message]], ...
] = (
    (_is_denial, _denied),
    (lambda text, exc: isinstance(exc, foreign.ReadOnlyError) or "READONLY" in text, _replica),
    (_is_code("OOM", foreign.OutOfMemoryError), _out_of_memory),
    (
        _is_code("MISCONF"),
        _says(
            "cannot save its data to its disk, and takes no changes",
            "free space on the server's disk; its log has the reason",
        ),
    ),
    (
        _is_code("NOREPLICAS"),
        _says(
            "has fewer replicas than it needs for a change",
            "start its replicas, or lower the server's min-replicas-to-write",
        ),
    ),
    (
        _is_code("MASTERDOWN", foreign.MasterDownError),
        _says("is a replica that has lost its primary: store.url must name the primary"),
    ),
    (
        _is_code("CLUSTERDOWN", foreign.ClusterDownError),
        _says("is a cluster that lacks nodes", "'redis-cli --cluster check HOST:PORT' names them"),
    ),
    (
        _is_code("BUSY"),
        _says("is busy with a script of somebody; try again in a moment", "'SCRIPT KILL' ends it"),
    ),
    (
        lambda text, _exc: "DB index is out of range" in text,
        _says("has no database of that number: correct the end of store.url, as /0"),
    ),
)
"""How each error reply is known, and what is said of it."""


def _store_name(store: StoreConfig) -> str:
    return f"{store.embedded_dir} (embedded)" if store.url == EMBEDDED else masked_url(store.url)


def _user_name(store: StoreConfig) -> str:
    if store.url == EMBEDDED:
        return "default"
    try:
        return address_with_login(store).username or "default"
    except CanhazgpuError:
        return "default"


def _silent_server_step(store: StoreConfig) -> str:
    if store.url == EMBEDDED:
        return f"its log is {store.embedded_dir}/server.log; {_restart_step(store)}"
    return (
        f"see whether it answers: '{redis_cli_command(store)}'; a slow one needs a longer timeout_s"
    )


def _restart_step(store: StoreConfig) -> str:
    return (
        f"end the process that {store.embedded_dir}/server.pid names, and 'canhazgpu status' as"
        " root starts another"
    )


def _login_step(store: StoreConfig) -> str:
    if store.url == EMBEDDED:
        return _restart_step(store)
    if store.login_file:
        return f"store.login_file {store.login_file} has to hold USER:PASSWORD"
    return "set user and password in store.url, as in redis://USER:PASSWORD@HOST:PORT/0"


def _root_cause(exc: BaseException) -> str:
    """Return the system's message that redis-py wrapped, as ``Connection refused``."""
    found = (one.strerror for one in _causes(exc) if isinstance(one, OSError) and one.strerror)
    return next(found, str(exc))


def _causes(exc: BaseException) -> list[BaseException]:
    """Return the exception and those that it wraps, the outermost first."""
    found: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


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
