"""Probe the GPUs and Redis from a process with a hook's environment.

What works in an administrator's shell may fail in a hook, which has no LD_LIBRARY_PATH, no PATH and
none of the shell's variables. Run as a module, this file is that process; it prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from canhazgpu.config.environment import CONFIG_VARIABLE
from canhazgpu.config.load import load
from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import CanhazgpuError, ScanError, advice_for
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json
from canhazgpu.ledger.record_json import seconds_from_ms_text
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.foreign_node import foreign_node_error, is_foreign, parse_identity
from canhazgpu.node.identity import NodeIdentity, boot_id, node_identity, node_name, state_dir
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.node_conf import cluster_of_conf, conf_path
from canhazgpu.schedulers.slurm.site.state import HookProbeResult

MODULE = "canhazgpu.schedulers.slurm.site.hook_probe"
PYTHON_START_S = 10.0
WRITE_SCRIPT = """\
local key, kept = KEYS[1], KEYS[2]
redis.call('HSET', key, 'a', redis.call('TIME')[1])
redis.call('HDEL', key, 'a')
redis.call('SET', key, 'a')
redis.call('DEL', key)
redis.call('XADD', key, 'MINID', '~', '0', '*', 'a', 'b')
redis.call('DEL', key)
return redis.call('HGET', kept, 'at')
"""
"""Each kind of change that the ledger's scripts make, on a key that is gone in the end.

A full store refuses it, and so does a replica, or a store for a user who lacks one of the rights.
It begins with a change that needs memory: a full store lets a script go on that has changed
something. DEL is tried before, so that everything can be taken back.
"""
ANSWERS_MEASURED = 3
STORE_ROUND_TRIPS = 12
"""Connecting, the commands and a start of the embedded server, each within Redis' timeout."""


def probe_as_hook(
    python: str, config_file: str | None, config: Config, conf: str, node: str
) -> HookProbeResult:
    """Return what a hook of this node would see. A fault is in the result, not raised."""
    environ = {names.NODE_NAME: node, names.SLURM_CONF: conf}
    if config_file:
        environ[CONFIG_VARIABLE] = config_file
    limit_s = (
        config.validation.scan_timeout_s
        + STORE_ROUND_TRIPS * config.store.timeout_s
        + PYTHON_START_S
    )
    try:
        done = subprocess.run(
            [python, "-I", "-m", MODULE],
            env=environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return HookProbeResult(
            fault=f"no answer within {limit_s:g} s from {python} as a hook runs it"
        )
    except OSError as exc:
        return HookProbeResult(fault=f"cannot run {python}: {exc.strerror}")
    if done.returncode != 0:
        stderr_tail = " ".join(done.stderr.split()[-40:])
        return HookProbeResult(
            fault=f"{python} as a hook runs it ended with {done.returncode}: {stderr_tail}"
        )
    return _parse_result(done.stdout)


def _parse_result(text: str) -> HookProbeResult:
    try:
        data = json.loads(text)
        scan = scan_from_json(json.dumps(data["scan"]).encode())
    except (ValueError, KeyError, TypeError, ScanError) as exc:
        return HookProbeResult(fault=f"what a hook saw cannot be read: {exc}")
    return HookProbeResult(
        gpus=scan.gpus,
        gpu_fault=scan.fault,
        store_fault=data["store_fault"],
        skew_s=data["skew_s"],
        skew_error_s=data["skew_error_s"],
        published_s=data["published_s"],
        store_step=data["store_step"],
        answer_s=data["answer_s"],
        known_gpus=data["known_gpus"],
        evicts=data["evicts"],
        unsaved=data["unsaved"],
        clients_mb=data["clients_mb"],
        max_clients=data["max_clients"],
        known_nodes=data["known_nodes"],
    )


def collect_probe_data(environ: Mapping[str, str]) -> dict[str, Any]:
    """Probe in this process, and return the result as JSON values."""
    from canhazgpu.probe.node_probe import NodeProbe  # noqa: PLC0415 - the parent process does not need it

    config = load(environ).config
    node = node_name(config.node, environ)
    scan = NodeProbe(node, config.validation).start()
    found: dict[str, Any] = {
        "store_fault": None,
        "store_step": "",
        "skew_s": None,
        "skew_error_s": 0.0,
        "published_s": None,
        "answer_s": None,
        "known_gpus": 0,
        "evicts": None,
        "unsaved": None,
        "clients_mb": None,
        "max_clients": None,
        "known_nodes": 0,
    }
    try:
        found |= _probe_store(config.store, _identity(config, node, environ), node)
    except CanhazgpuError as exc:
        found |= {"store_fault": str(exc), "store_step": advice_for(exc).next_step}
    return {**found, "scan": json.loads(scan_to_json(scan.observe().scan))}


def _identity(config: Config, node: str, environ: Mapping[str, str]) -> NodeIdentity | None:
    cluster = cluster_of_conf(conf_path(environ))
    return node_identity(node, cluster, state_dir(config.node, node), boot_id())


def _probe_store(store: StoreConfig, own: NodeIdentity | None, node: str) -> dict[str, Any]:
    """Change the store, take it back, and return what `HookProbeResult` has of it."""
    from canhazgpu.ledger.store.connect import Role, connect, translate_errors  # noqa: PLC0415 - redis
    from canhazgpu.ledger.store.ledger import RedisLedger  # noqa: PLC0415

    client = connect(store, Role.WRITE)
    with translate_errors(store):
        client.ping()  # the measurement does not include connecting
        clocks = [_clock_difference(client) for _ in range(ANSWERS_MEASURED)]
        known = keys.node_keys(node, store.prefix)
        scratch = f"{known.recorded}:check"
        client.delete(scratch)
        script = client.register_script(WRITE_SCRIPT)
        at = cast(str | None, script(keys=[scratch, known.scan]))
        text = cast(str | None, client.hget(known.scan, "identity"))
        facts = _settings(client, store.prefix)
    recorded = parse_identity(text or "")
    if own is not None and recorded is not None and is_foreign(own, recorded):
        raise foreign_node_error(own, recorded)
    (view,) = RedisLedger(store, Role.WRITE).read_nodes([node])
    skew_s, error_s = min(clocks, key=lambda one: one[1])
    published_at, now = seconds_from_ms_text(at), time.time() + skew_s
    return {
        **facts,
        "skew_s": skew_s,
        "skew_error_s": error_s,
        "answer_s": 2 * error_s,
        "published_s": None if published_at is None else max(0.0, now - published_at),
        "known_gpus": len(view.known_gpus),
    }


def with_store_settings(result: HookProbeResult, store: StoreConfig) -> HookProbeResult:
    """Return the result with the store's settings, asked with this login where a hook's may not."""
    if result.fault or result.store_fault or result.evicts is not None:
        return result
    from canhazgpu.ledger.store.connect import Role, connect, translate_errors  # noqa: PLC0415 - redis

    try:
        client = connect(store, Role.WRITE)
        with translate_errors(store):
            return replace(result, **_settings(client, store.prefix))
    except CanhazgpuError:
        return result


def _clock_difference(client: Any) -> tuple[float, float]:
    """Return the store's clock minus the node's, and its error, half of the answer's time."""
    before = time.time()
    seconds, microseconds = client.time()
    after = time.time()
    return seconds + microseconds / 1e6 - (before + after) / 2, (after - before) / 2


def _settings(client: Any, prefix: str) -> dict[str, Any]:
    """Return those fields of `HookProbeResult` that tell of the server's settings."""
    limit = _info(client, "clients").get("maxclients")
    return {
        "max_clients": limit if isinstance(limit, int) else None,
        "known_nodes": client.scard(keys.nodes_key(prefix)),
        "evicts": _eviction(client),
        "unsaved": _unsaved(client),
        "clients_mb": _memory_of_clients(client),
    }


def _memory_of_clients(client: Any) -> float | None:
    """Return the limit in MB, 0 for none; None if not known, or if the release has none."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - where a store is asked

    try:
        found = client.config_get("maxmemory-clients")
    except ResponseError:
        return None
    limit = found.get("maxmemory-clients")
    if not isinstance(limit, str):
        return None
    if limit.endswith("%"):
        maxmemory = int(_info(client, "memory").get("maxmemory", 0))
        return float(limit.rstrip("%")) / 100 * maxmemory / 2**20
    return int(limit) / 2**20


def _eviction(client: Any) -> str | None:
    """Return the policy by which the store evicts keys, "" for none; None if not known."""
    info = _info(client, "memory")
    if "maxmemory_policy" not in info:
        return None
    policy = str(info["maxmemory_policy"])
    return policy if info.get("maxmemory") and policy != "noeviction" else ""


def _unsaved(client: Any) -> str | None:
    """Return what failed when the store last wrote its data, "" for nothing; None if not known."""
    info = _info(client, "persistence")
    states = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status")
    known = {state: info[state] for state in states if state in info}
    return (
        ", ".join(f"{name}:{one}" for name, one in known.items() if one != "ok") if known else None
    )


def _info(client: Any, section: str) -> dict[str, Any]:
    """Return a section of the server's information, empty if this user may not ask for it."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - where a store is asked

    try:
        return dict(client.info(section))
    except ResponseError:
        return {}


def main() -> int:
    """Print the result as JSON."""
    try:
        print(json.dumps(collect_probe_data(os.environ)))  # noqa: T201 - the result
    except CanhazgpuError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - the fault
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
