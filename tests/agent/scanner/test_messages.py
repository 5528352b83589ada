"""What the scanner is asked and answers: there and back, and anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from canhazgpu.agent.scanner import messages
from canhazgpu.agent.scanner.messages import (
    Failed,
    ReadSettings,
    Released,
    ReleaseRequest,
    ScanRequest,
    Taken,
    decode_answer,
    decode_request,
)
from canhazgpu.agent.wire.framing import WireError
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.gpu.scan_json import scan_to_json

SETTINGS = ReadSettings("n\u00f61", "nvml", "/lib/a\0b", 0.5, "/etc/slurm.conf", "/run/x")


def without_end(message: bytes) -> bytes:
    assert message.count(b"\0") == 1
    assert message.endswith(b"\0")
    return message[:-1]


@pytest.mark.parametrize("request_", [ScanRequest(SETTINGS, 12.25), ReleaseRequest(3.5)])
def test_a_request_comes_back(request_: messages.Request) -> None:
    assert decode_request(without_end(messages.encode_request(request_))) == request_


def test_answers_come_back() -> None:
    scan = Scan("n1", 1.5, 0.25, (GpuReading(0, "GPU-a", None, "a\0b", 1, 2),))
    assert decode_answer(without_end(messages.encode_scan(scan_to_json(scan).encode()))) == scan
    assert decode_answer(without_end(messages.encode_failure("why"))) == Failed("why")
    assert decode_answer(without_end(messages.encode_released((1, 2)))) == Released((1, 2))
    assert decode_answer(without_end(messages.TAKEN)) == Taken()


def changed(**parameters: Any) -> bytes:
    """Return a request with other parameters; None removes one."""
    data = json.loads(without_end(messages.encode_request(ScanRequest(SETTINGS, 1.0))))
    data["parameters"] |= parameters
    data["parameters"] = {k: v for k, v in data["parameters"].items() if v is not None}
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"method":"Scan"}',
        b'{"method":"Scan","parameters":[]}',
        changed(interface=2),
        changed(interface=None),
        changed(deadline="soon"),
        changed(deadline=float("nan")),
        changed(deadline=True),
        changed(source="/bin/sh"),
        changed(source=["nvml"]),
        changed(path=7),
        changed(path=None),
        changed(details_wait_s="1"),
        changed(environ={}),
    ],
)
def test_what_is_no_request(message: bytes) -> None:
    with pytest.raises(WireError):
        decode_request(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"parameters":{}}',
        b'{"parameters":{"scan":7}}',
        b'{"parameters":{"scan":{"gpus":[{}]}}}',
        b'{"parameters":{"holding":["1"]}}',
        b'{"parameters":{"holding":{}}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer(message: bytes) -> None:
    with pytest.raises(WireError):
        decode_answer(message)
