"""The CSV of nvidia-smi as values: what is a value, what is none, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.errors import ScanError
from canhazgpu.probe.nvidia_smi import csv_output
from canhazgpu.probe.nvidia_smi.csv_output import SmiApp, parse_apps, parse_gpus

FIELDS = ("index", "uuid", "pci.bus_id", "memory.used", "memory.total", "name")


def one(row: str) -> csv_output.SmiGpu:
    (gpu,) = parse_gpus(row + "\n", FIELDS)
    return gpu


def test_a_row() -> None:
    gpu = one("3, GPU-a, 00000000:10:00.0, 45, 81559, Some, GPU, with commas")
    assert (gpu.index, gpu.uuid, gpu.bus_id) == (3, "GPU-a", "00000000:10:00.0")
    assert (gpu.memory_used_mb, gpu.memory_total_mb) == (45, 81559)
    assert (gpu.name, gpu.fault) == ("Some, GPU, with commas", None)


@pytest.mark.parametrize("words", ["[N/A]", "[Not Supported]", "[ N/A ]", "[not available]"])
def test_what_is_not_available_is_none_and_no_fault(words: str) -> None:
    gpu = one(f"0, GPU-a, {words}, {words}, {words}, {words}")
    assert (gpu.memory_used_mb, gpu.memory_total_mb, gpu.name) == (None, None, "")
    assert gpu.fault is None


@pytest.mark.parametrize("words", ["[GPU is lost]", "[Unknown Error]", "[Weird]", "[]"])
@pytest.mark.parametrize("column", [1, 3, 4])
def test_another_word_in_brackets_is_a_fault(words: str, column: int) -> None:
    cells = ["0", "GPU-a", "x", "45", "81559", "name"]
    cells[column] = words
    gpu = one(", ".join(cells))
    assert (gpu.fault or "").startswith(f"{words[1:-1]} ({FIELDS[column]} of nvidia-smi): ")


@pytest.mark.parametrize("cell", ["45 MiB", "-1", "4.5", "", "0x10", "1e3", "N/A", "9" * 30, "²"])
def test_an_amount_that_is_no_number_is_a_fault(cell: str) -> None:
    gpu = one(f"0, GPU-a, x, {cell}, 81559, name")
    assert gpu.memory_used_mb is None
    assert "memory.used" in (gpu.fault or "")


def test_an_index_that_is_none_is_the_place() -> None:
    text = "[N/A], GPU-a, x, 1, 2, name\n[N/A], GPU-b, x, 1, 2, name\n"
    assert [gpu.index for gpu in parse_gpus(text, FIELDS)] == [0, 1]


@pytest.mark.parametrize(
    "text", ["", "\n", "0\n", "0, GPU-a, x, 1, 2\n", "0, GPU-a, x, 1, 2, name", "a\x85b,,,,,\n"]
)
def test_another_shape_is_refused(text: str) -> None:
    with pytest.raises(ScanError, match="by hand"):
        parse_gpus(text, FIELDS)


def test_no_devices() -> None:
    assert parse_gpus("No devices were found\n", FIELDS) == ()
    assert parse_apps("No devices were found\n") == ()
    assert parse_apps("") == ()


def test_apps() -> None:
    assert parse_apps("12, GPU-a, 700\n13, GPU-a, [N/A]\n") == (
        SmiApp("GPU-a", 12, 700),
        SmiApp("GPU-a", 13, None),
    )
    (untold,) = parse_apps("[Not Supported], GPU-a, [Not Supported]\n")
    assert (untold.uuid, (untold.fault or "").startswith("Not Supported")) == ("GPU-a", True)


def test_mig_is_asked_for_as_long_as_it_is_known() -> None:
    fields = csv_output.gpu_fields()
    refused = 'Field "retired_pages.pending" is not a valid field to query.\n\n'
    fewer = csv_output.fields_without_unknown(fields, refused)
    assert fewer is not None
    assert set(fields) - set(fewer) == {
        "retired_pages.pending",
        "remapped_rows.pending",
        "remapped_rows.failure",
        "gpu_recovery_action",
    }
    assert csv_output.fields_without_unknown(fewer, refused) is None
    assert fewer[-1] == "name"


@given(st.text(), st.sampled_from([FIELDS, csv_output.gpu_fields()]))
def test_any_text_is_gpus_or_refused(text: str, fields: tuple[str, ...]) -> None:
    for parse in (lambda: parse_gpus(text, fields), lambda: parse_apps(text)):
        try:
            found = parse()
        except ScanError as exc:
            assert str(exc).isprintable()
            continue
        assert len(found) <= text.count("\n")
