"""GPU numbers and UUIDs as schedulers and people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import DeviceNumber, parse_device_numbers, parse_uuid


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0,1", [0, 1]),
        ("3,1,2", [3, 1, 2]),
        ("0-3", [0, 1, 2, 3]),
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("7,0-1", [7, 0, 1]),
        ("2-2", [2]),
        (" 1 , 2 ", [1, 2]),
        ("007", [7]),
        ("4095", [4095]),
    ],
)
def test_lists_of_numbers_are_read_in_their_order(text: str, numbers: list[int]) -> None:
    assert parse_device_numbers(text, "X") == tuple(map(DeviceNumber, numbers))


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", ",", "0,", ",0", "0,,1", "a", "-1", "1-", "-", "3-1", "1-2-3", "0x1", "1.0"],
        *["1e3", "4096", "0-4096", "99999", "0 1", "0;1", "0\n1", "GPU-1", "+1", "٣", "²", "gpu:0"],
        *["0-1 ,x", "(null)", "N/A", "0" * 5],
    ],
)
def test_anything_else_is_refused_by_name_and_place(text: str) -> None:
    with pytest.raises(InputError, match=r"SLURM_JOB_GPUS='.*is not a list of GPU numbers"):
        parse_device_numbers(text, "SLURM_JOB_GPUS")


@pytest.mark.parametrize("text", ["0,0", "0-3,2", "1,01", "0-1,1-2"])
def test_a_gpu_named_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names a GPU twice"):
        parse_device_numbers(text, "X")


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(InputError) as caught:
        parse_device_numbers("x" * 10_000, "X")
    assert len(str(caught.value)) < 200


@given(st.text(max_size=20))
def test_any_text_is_numbers_or_refused(text: str) -> None:
    try:
        found = parse_device_numbers(text, "X")
    except InputError:
        return
    assert found
    assert len(set(found)) == len(found)
    assert all(0 <= number.value <= 4095 for number in found)


@pytest.mark.parametrize("text", ["GPU-6f1a3e0c-53d1-4f0e-9a57-6b7a1d0c9e11", "MIG-GPU-a/1/0"])
def test_uuids_are_read(text: str) -> None:
    assert str(parse_uuid(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "GPU", "GPU-", "gpu-1", "0", "GPU-1\n", "GPU-1 ", "GPU-{n}", "GPU-" + "a" * 91, "X-1"],
)
def test_what_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a GPU UUID"):
        parse_uuid(text)
