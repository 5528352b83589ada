"""GPU numbers and UUIDs as schedulers and people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import (
    GpuIndex,
    GpuSelector,
    MigIndex,
    SchedulerGpuNumber,
    UuidPrefix,
    parse_gpu_ids,
    parse_scheduler_numbers,
    parse_uuid,
    resolve_gpus,
)
from canhazgpu.gpu.scan import GpuReading


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
    assert parse_scheduler_numbers(text, "X") == tuple(map(SchedulerGpuNumber, numbers))


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
        parse_scheduler_numbers(text, "SLURM_JOB_GPUS")


@pytest.mark.parametrize("text", ["0,0", "0-3,2", "1,01", "0-1,1-2"])
def test_a_gpu_named_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names a GPU twice"):
        parse_scheduler_numbers(text, "X")


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(InputError) as caught:
        parse_scheduler_numbers("x" * 10_000, "X")
    assert len(str(caught.value)) < 200


@given(st.text(max_size=20))
def test_any_text_is_numbers_or_refused(text: str) -> None:
    try:
        found = parse_scheduler_numbers(text, "X")
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


UUID_0 = "GPU-68ab0000-53d1-4f0e-9a57-6b7a1d0c9e11"
UUID_1 = "GPU-68ac0000-53d1-4f0e-9a57-6b7a1d0c9e11"
UUID_2 = "GPU-7f000000-53d1-4f0e-9a57-6b7a1d0c9e11"
MIG_0 = "MIG-11110000-53d1-4f0e-9a57-6b7a1d0c9e11"
MIG_1 = "MIG-22220000-53d1-4f0e-9a57-6b7a1d0c9e11"


@pytest.mark.parametrize(
    ("text", "selectors"),
    [
        ("1", [GpuIndex(1)]),
        ("1,3", [GpuIndex(1), GpuIndex(3)]),
        ("3,1", [GpuIndex(3), GpuIndex(1)]),
        (" 1 , 3 ", [GpuIndex(1), GpuIndex(3)]),
        ("0-2", [GpuIndex(0), GpuIndex(1), GpuIndex(2)]),
        ("7,0-1", [GpuIndex(7), GpuIndex(0), GpuIndex(1)]),
        ("2-2", [GpuIndex(2)]),
        ("007", [GpuIndex(7)]),
        ("4095", [GpuIndex(4095)]),
        ("0:1", [MigIndex(0, 1)]),
        ("0:1,0:0,2", [MigIndex(0, 1), MigIndex(0, 0), GpuIndex(2)]),
        (UUID_0, [UuidPrefix(UUID_0)]),
        ("GPU-68ab", [UuidPrefix("GPU-68ab")]),
        ("GPU-6", [UuidPrefix("GPU-6")]),
        ("MIG-1111,0", [UuidPrefix("MIG-1111"), GpuIndex(0)]),
        ("MIG-GPU-68ab/1/0", [UuidPrefix("MIG-GPU-68ab/1/0")]),
    ],
)
def test_gpu_ids_are_read_in_their_order(text: str, selectors: list[GpuSelector]) -> None:
    assert parse_gpu_ids(text) == tuple(selectors)


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", ",", "0,", ",0", "1,,3", "all", "a", "-1", "1-", "-", "3-1", "1-2-3", "0x1"],
        *["1.0", "1e3", "+1", "4096", "0-4096", "99999", "9" * 30, "0 1", "0;1", "1\n2", "gpu:0"],
        *[
            "٣",
            "²",
            "\uff11",
            "0:",
            ":1",
            "0:1:2",
            "0:-1",
            "0:0-1",
            "GPU",
            "GPU-",
            "gpu-68ab",
            "68ab",
        ],
        *["GPU-6 8", "GPU-{n}", "GPU-" + "a" * 91, "X-1", "GPU-1;rm", "\x1b[2J", "GPU 1"],
    ],
)
def test_bad_gpu_ids_are_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError, match="names no GPU; accepted: indices as 0,3 or 0-3, MIG"):
        parse_gpu_ids(text)


@pytest.mark.parametrize("text", ["1,1", "0-3,2", "1,01", "0:1,0:1", "GPU-6,GPU-6"])
def test_the_same_name_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is named twice; name each GPU once"):
        parse_gpu_ids(text)


def test_a_huge_list_is_refused_in_few_words() -> None:
    with pytest.raises(InputError) as caught:
        parse_gpu_ids("1," * 100_000)
    with pytest.raises(InputError) as unread:
        parse_gpu_ids("x" * 10_000)
    assert max(len(str(caught.value)), len(str(unread.value))) < 300


def test_the_part_that_is_wrong_is_named() -> None:
    with pytest.raises(InputError, match=r"^'x' in '0,x,1' names no GPU"):
        parse_gpu_ids("0,x,1")


@given(st.text(max_size=20))
def test_any_text_is_selectors_or_refused(text: str) -> None:
    try:
        found = parse_gpu_ids(text)
    except InputError:
        return
    assert found
    assert len(set(found)) == len(found)
    assert parse_gpu_ids(",".join(map(str, found))) == found


def gpu(index: int, uuid: str, mig_index: int | None = None) -> GpuReading:
    parent = None if mig_index is None else "GPU-parent"
    return GpuReading(
        index, uuid, index, "H100", 0, 1, mig_index=mig_index, parent_uuid=parent,
        fault=None if uuid else "GPU is lost (NVML error 15)",
    )  # fmt: skip


NODE = (
    *(gpu(0, UUID_0), gpu(1, UUID_1), gpu(2, UUID_2)),
    *(gpu(4, MIG_0, 0), gpu(4, MIG_1, 1), gpu(5, "")),
)


@pytest.mark.parametrize(
    ("text", "uuids"),
    [
        ("0", [UUID_0]),
        ("2,0-1", [UUID_2, UUID_0, UUID_1]),
        ("4:1", [MIG_1]),
        ("GPU-68ab,GPU-7", [UUID_0, UUID_2]),
        ("GPU-68AB", [UUID_0]),
        (UUID_1, [UUID_1]),
        ("MIG-2,0", [MIG_1, UUID_0]),
    ],
)
def test_the_gpus_meant(text: str, uuids: list[str]) -> None:
    assert resolve_gpus(parse_gpu_ids(text), NODE, "n1") == tuple(uuids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9", "there is no GPU 9 on n1; it has 0-2, 5, 4:0, 4:1"),
        ("0-3", "there is no GPU 3 on n1;"),
        ("4:2", "there is no GPU 4:2 on n1;"),
        ("0:0", "there is no GPU 0:0 on n1;"),
        ("GPU-9", "there is no GPU GPU-9 on n1;"),
        ("GPU-68", f"GPU-68 fits 2 GPUs of n1, name one: {UUID_0}, {UUID_1}"),
        ("4", "4 fits 2 GPUs of n1, name one: 4:0, 4:1"),
        ("0,GPU-68ab", "0 and GPU-68ab are the same GPU; name each GPU once"),
        ("5", "GPU 5 of n1 cannot be read: GPU is lost (NVML error 15)"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_there(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_gpus(parse_gpu_ids(text), NODE, "n1")
    assert str(caught.value).startswith(message)


def test_a_uuid_that_begins_another_is_that_gpu() -> None:
    assert resolve_gpus(parse_gpu_ids("GPU-1"), (gpu(0, "GPU-10"), gpu(1, "GPU-1")), "n1") == (
        "GPU-1",
    )


def test_a_node_without_gpus_says_so() -> None:
    with pytest.raises(InputError, match="there is no GPU 0 on n1; it has none"):
        resolve_gpus(parse_gpu_ids("0"), (), "n1")
