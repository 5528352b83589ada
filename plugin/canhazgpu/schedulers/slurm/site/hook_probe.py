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
from typing import Any, cast

from canhazgpu.config.environment import CONFIG_VARIABLE
from canhazgpu.config.load import load
from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import CanhazgpuError, ScanError
from canhazgpu.gpu.scan import scan_from_json, scan_to_json
from canhazgpu.ledger.record_json import seconds_from_ms_text
from canhazgpu.ledger.store import keys
from canhazgpu.node.identity import node_name
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.site.state import HookProbeResult

MODULE = "canhazgpu.schedulers.slurm.site.hook_probe"
PYTHON_START_S = 10.0
NOOP_WRITE_SCRIPT = "return redis.call('PERSIST', KEYS[1])"
"""A write that changes nothing: none of the ledger's keys has a time to live.

Redis refuses it to a user with read access only, and a replica refuses it."""
STORE_ROUND_TRIPS = 6
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
    )


def collect_probe_data(environ: Mapping[str, str]) -> dict[str, Any]:
    """Probe in this process, and return the result as JSON values."""
    from canhazgpu.probe.node_probe import NodeProbe  # noqa: PLC0415 - the parent process does not need it

    config = load(environ).config
    node = node_name(config.node, environ)
    scan = NodeProbe(node, config.validation).start()
    found: dict[str, Any] = {
        "store_fault": None,
        "skew_s": None,
        "skew_error_s": 0.0,
        "published_s": None,
    }
    try:
        found |= _probe_store(config.store, node)
    except CanhazgpuError as exc:
        found["store_fault"] = str(exc)
    return {**found, "scan": json.loads(scan_to_json(scan.observe().scan))}


def _probe_store(store: StoreConfig, node: str) -> dict[str, Any]:
    """Return Redis' clock minus the node's, the error of that, and the published scan's age."""
    from canhazgpu.ledger.store.connect import Role, connect, translate_errors  # noqa: PLC0415 - redis

    client = connect(store, Role.WRITE)
    with translate_errors(store):
        client.ping()  # the measurement does not include connecting
        before = time.time()
        seconds, microseconds = client.time()
        after = time.time()
        known = keys.node_keys(node, store.prefix)
        at = cast(str | None, client.hget(known.scan, "at"))
        client.eval(NOOP_WRITE_SCRIPT, 1, known.recorded)
    published_at = seconds_from_ms_text(at)
    now = seconds + microseconds / 1e6
    return {
        "skew_s": now - (before + after) / 2,
        "skew_error_s": (after - before) / 2,
        "published_s": None if published_at is None else max(0.0, now - published_at),
    }


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
