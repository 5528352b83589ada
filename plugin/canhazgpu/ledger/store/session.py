"""The connections of one ledger, and its scripts; every error is a `StoreError`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from canhazgpu.errors import StoreError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.store.connect import Role, connect, translate_errors
from canhazgpu.ledger.store.foreign_node import foreign_node_error, recorded_identity
from canhazgpu.ledger.store.keys import Hint, NodeKeys, node_keys
from canhazgpu.ledger.store.script_texts import script_names, script_text

if TYPE_CHECKING:
    import redis

    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.ledger.wait_budget import WaitBudget
    from canhazgpu.node.identity import NodeIdentity

DAY_MS = 24 * 3600 * 1000
MAX_BLOCK_S = 1.0
"""Longest time for which one command may block at the store."""
MB = 1024 * 1024


class StoreSession:
    """A client for commands and one for blocking reads; each is opened on first use."""

    def __init__(
        self,
        store: StoreConfig,
        role: Role,
        budget: WaitBudget | None = None,
        identity: NodeIdentity | None = None,
    ) -> None:
        self.in_cluster = store.url.startswith("redis+cluster://")
        self._store = store
        self._role = role
        self._wait_budget = budget
        self._identity = identity
        self._own_keys = node_keys(identity.node, store.prefix) if identity else None
        self._history_limits = (
            f"{store.history_days * DAY_MS} {store.history_max_mb * MB}"  # as common.lua takes them
        )
        self._command_client: redis.Redis | None = None
        self._blocking_client: redis.Redis | None = None

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Yield the client for commands; use it inside the block only."""
        with self._errors():
            yield self._client()

    @contextmanager
    def blocking_client(self) -> Iterator[redis.Redis]:
        """Yield a client that may block for `MAX_BLOCK_S`; it is not used for other commands."""
        with self._errors():
            if self._blocking_client is None:
                # A block ends up to 0.1 s late; then the store has its usual time to answer.
                blocking_store = replace(
                    self._store, timeout_s=self._store.timeout_s + 2 * MAX_BLOCK_S
                )
                self._blocking_client = connect(blocking_store, self._role, self._wait_budget)
            yield self._blocking_client

    def run_script(
        self,
        name: str,
        node: NodeKeys,
        *arguments: str | int,
        more_keys: Sequence[str] = (),
        hints: Iterable[Hint] = (),
    ) -> Any:
        """Run a script on a node's keys: one round trip, two more if it is not loaded.

        `more_keys` are further keys of the node, after those of `NodeKeys`. The `hints` are added
        before; a login that may not add them runs the script all the same. Raises
        `ForeignNodeError` if the node is this one, and another cluster's in the store.
        """
        identity = ""
        if self._identity is not None and node == self._own_keys and name != "forget_node":
            identity = self._identity.to_json()
        script, keys = load_script(name), [*node.in_order(), *more_keys]
        with self._errors():
            client: Any = self._client()
            from redis.exceptions import NoScriptError  # noqa: PLC0415 - imported by the client

            call = (script.sha, len(keys), *keys, self._history_limits, *arguments, identity)
            try:
                return self._evalsha(client, call, hints)
            except NoScriptError:
                client.script_load(script.text)
                return client.evalsha(*call)

    def _evalsha(self, client: Any, call: Sequence[str | int], hints: Iterable[Hint]) -> Any:
        """Run the script after the hints, on one server in one round trip."""
        if self.in_cluster:
            self.add_hints(hints)
            return client.evalsha(*call)
        pipeline = client.pipeline(transaction=False)
        for key, member in hints:
            pipeline.sadd(key, member)
        if not len(pipeline):
            return client.evalsha(*call)
        pipeline.evalsha(*call)
        answer = pipeline.execute(raise_on_error=False)[-1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def add_hints(self, hints: Iterable[Hint], expire_s: int = 0) -> bool:
        """Add the hints; returns whether the login may do so.

        With `expire_s` their keys are removed after so many seconds, where the login may say so.
        """
        with self.client() as client:
            pipeline = client.pipeline(transaction=False)
            wanted = list(hints)
            for key, member in wanted:
                pipeline.sadd(key, member)
            if expire_s:
                for key in dict.fromkeys(key for key, _ in wanted):
                    pipeline.expire(key, expire_s)
            answers = pipeline.execute(raise_on_error=False) if wanted else []
        return not any(isinstance(one, Exception) for one in answers[: len(wanted)])

    def open(self) -> None:
        """Connect now: it may take long, as it may start the embedded store."""
        with self._errors():
            self._client()

    def disconnect(self) -> None:
        """Hang up: the clients stay, with what they know of the store, and connect when used."""
        from canhazgpu.ledger.store.client import disconnect  # noqa: PLC0415 - imports redis

        for client in (self._command_client, self._blocking_client):
            if client is not None:
                disconnect(client)

    def _client(self) -> redis.Redis:
        if self._command_client is None:
            self._command_client = connect(self._store, self._role, self._wait_budget)
        return self._command_client

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with translate_errors(self._store):
                yield
        except StoreError as exc:
            if self._identity is not None and (known := recorded_identity(str(exc.__cause__))):
                raise foreign_node_error(self._identity, known) from exc
            raise
        except UnicodeDecodeError as exc:
            raise StoreError(
                f"the ledger holds what is no text: {exc}",
                next_step="another program writes into its keys: give it another database",
            ) from exc


@dataclass(frozen=True, slots=True)
class LoadedScript:
    """A script's text, and the name by which the store knows it: the SHA-1 of the text."""

    text: str
    sha: str

    @staticmethod
    def of(text: str) -> LoadedScript:
        """Return the script with this text."""
        return LoadedScript(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def load_script(name: str) -> LoadedScript:
    """Return the script; a process reads it once."""
    return LoadedScript.of(script_text(name))


def load_all_scripts() -> None:
    """Read them all now: what is forked from this process has them."""
    for name in script_names():
        load_script(name)
