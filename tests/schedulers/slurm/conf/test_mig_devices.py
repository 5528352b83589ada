"""A position of Slurm leads to one MIG instance, or to a refusal, never to another device."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading, MigDeviceNumbers
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions, has_unlisted_gpus
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.interchangeable import interchangeable_gpus
from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf

CAP = "/dev/nvidia-caps/nvidia-cap"


def whole(index: int, number: int | None = None) -> GpuReading:
    return GpuReading(index, f"GPU-{index}", index if number is None else number, "A100", 0, 40000)


def instance(
    index: int, mig_index: int, numbers: MigDeviceNumbers | None, uuid: str | None = None
) -> GpuReading:
    named = f"MIG-{index}:{mig_index}" if uuid is None else uuid
    return GpuReading(
        index, named, None, "A100 MIG 1g.5gb", 0, 5000,
        mig_index=mig_index, parent_uuid=f"GPU-{index}", mig_devices=numbers,
    )  # fmt: skip


def device(*files: str, kind: str = "") -> GpuDevice:
    return GpuDevice(kind, files)


# NVML's GPU 2 is /dev/nvidia0 and divided; the others are whole.
DIVIDED = [
    instance(2, place, MigDeviceNumbers(0, 12 + 9 * place, 13 + 9 * place)) for place in (0, 1)
]
NODE = [whole(0, 3), whole(1, 1), *DIVIDED, whole(3, 2)]


def mapped(*files: str, gpus: list[GpuReading] = NODE) -> tuple[str, str]:
    (found,) = gpus_at_positions([0], [device(*files)], gpus)
    return found.uuid, found.device_file


@pytest.mark.parametrize(
    ("files", "uuid", "own_file"),
    [
        ((f"{CAP}13",), "MIG-2:0", f"{CAP}13"),
        ((f"{CAP}12",), "MIG-2:0", f"{CAP}12"),
        ((f"{CAP}21",), "MIG-2:1", f"{CAP}21"),
        (("/dev/nvidia0", f"{CAP}21", f"{CAP}22"), "MIG-2:1", f"{CAP}22"),
        ((f"{CAP}22", f"{CAP}21", "/dev/nvidia0"), "MIG-2:1", f"{CAP}22"),
        (("/dev/nvidia0", f"{CAP}12"), "MIG-2:0", f"{CAP}12"),
        (("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", f"{CAP}13"), "MIG-2:0", f"{CAP}13"),
        ((f"{CAP}1", f"{CAP}2", f"{CAP}13"), "MIG-2:0", f"{CAP}13"),
        (("/tmp/n1/nvidia-caps/nvidia-cap22",), "MIG-2:1", "/tmp/n1/nvidia-caps/nvidia-cap22"),
        (("/dev/nvidia3",), "GPU-0", "/dev/nvidia3"),
        (("/dev/nvidia2", "/dev/nvidiactl"), "GPU-3", "/dev/nvidia2"),
    ],
)
def test_the_files_name_the_instance(files: tuple[str, ...], uuid: str, own_file: str) -> None:
    assert mapped(*files) == (uuid, own_file)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (("/dev/nvidia0",), r"divided into the MIG instances 2:0, 2:1: name the device files"),
        ((f"{CAP}30",), "no MIG instance with these device files"),
        (("/dev/nvidia1", f"{CAP}13"), "no MIG instance with these device files"),
        ((f"{CAP}13", f"{CAP}22"), "no MIG instance with these device files"),
        (("/dev/nvidia1", "/dev/nvidia2"), "files of 2 GPUs, not of one"),
        (("/dev/nvidiactl",), "files of 0 GPUs, not of one"),
        (("/dev/nvidia0", "/dev/dri/card0"), r"/dev/dri/card0 is no device file of an NVIDIA GPU"),
        (("/dev/nvidia-caps/nvidia-cap",), "is no device file of an NVIDIA GPU"),
        (("/dev/nvidia-caps/nvidia-cap13x",), "is no device file of an NVIDIA GPU"),
        (("/dev/nvidia0x",), "is no device file of an NVIDIA GPU"),
    ],
)
def test_files_that_name_no_single_device_are_refused(files: tuple[str, ...], text: str) -> None:
    with pytest.raises(InputError, match=rf"^Slurm gave GPU 0 \({','.join(files)}\), .*{text}"):
        mapped(*files)


SHARED = [
    instance(0, 0, MigDeviceNumbers(0, 12, 13)),
    instance(0, 1, MigDeviceNumbers(0, 12, 14)),
    instance(0, 2, MigDeviceNumbers(0, 21, 22)),
]


def test_a_gpu_instance_names_its_compute_instance_only_where_it_has_one() -> None:
    assert mapped(f"{CAP}14", gpus=SHARED)[0] == "MIG-0:1"
    assert mapped("/dev/nvidia0", f"{CAP}12", f"{CAP}14", gpus=SHARED)[0] == "MIG-0:1"
    assert mapped(f"{CAP}21", gpus=SHARED)[0] == "MIG-0:2"
    with pytest.raises(InputError, match=r"GPU instance of several MIG instances, 0:0, 0:1"):
        mapped("/dev/nvidia0", f"{CAP}12", gpus=SHARED)


@pytest.mark.parametrize(
    "unknown", [None, MigDeviceNumbers(), MigDeviceNumbers(0), MigDeviceNumbers(0, 12, None)]
)
def test_numbers_that_are_not_known_refuse_what_they_could_be(
    unknown: MigDeviceNumbers | None,
) -> None:
    node = [whole(1), instance(0, 0, MigDeviceNumbers(0, 12, 13)), instance(0, 1, unknown)]
    assert mapped("/dev/nvidia1", gpus=node)[0] == "GPU-1"
    assert mapped(f"{CAP}13", gpus=node)[0] == "MIG-0:0"
    for number in (12, 14, 21):
        with pytest.raises(
            InputError, match=r"cannot be known.*/proc/driver/nvidia-caps/mig-minors"
        ):
            mapped(f"{CAP}{number}", gpus=node)


def test_a_job_does_not_get_one_instance_for_two_positions() -> None:
    devices = [device(f"{CAP}12"), device(f"{CAP}13"), device("/dev/nvidia3")]
    assert [one.uuid for one in gpus_at_positions([1, 2], devices, NODE)] == ["MIG-2:0", "GPU-0"]
    with pytest.raises(InputError, match="counts MIG-2:0 as GPU 0 and as GPU 1"):
        gpus_at_positions([0, 1, 2], devices, NODE)


def test_an_instance_without_a_uuid_is_not_assigned() -> None:
    with pytest.raises(InputError, match="does not show by a UUID"):
        mapped(f"{CAP}13", gpus=[instance(0, 0, MigDeviceNumbers(0, 12, 13), "")])


DEVICES = [
    device("/dev/nvidia0", f"{CAP}12", f"{CAP}13", kind="1g.5gb"),
    device("/dev/nvidia0", f"{CAP}21", f"{CAP}22", kind="1g.5gb"),
    *(device(f"/dev/nvidia{number}", kind="a100") for number in (1, 2, 3)),
]
INSTANCES = {"MIG-2:0", "MIG-2:1"}
WHOLE = {"GPU-0", "GPU-1", "GPU-3"}


@pytest.mark.parametrize(
    ("positions", "choice"),
    [
        ([0], INSTANCES),
        ([0, 1], INSTANCES),
        ([2], WHOLE),
        ([2, 4], WHOLE),
        ([1, 2], {"MIG-2:1", "GPU-1"}),
    ],
)
def test_a_job_can_have_other_gpus_of_its_kind_alone(
    positions: list[int], choice: set[str]
) -> None:
    assert interchangeable_gpus(positions, DEVICES, NODE) == choice
    untyped = [GpuDevice("", one.files) for one in DEVICES]
    assert interchangeable_gpus(positions, untyped, NODE) == choice


def test_where_all_are_of_one_kind_any_will_do() -> None:
    gpus = [whole(0), whole(1)]
    for devices in ([], [device("/dev/nvidia0"), device("/dev/nvidia1")]):
        assert interchangeable_gpus([0], devices, gpus) is None
    typed = [device("/dev/nvidia0", kind="a100"), device("/dev/nvidia1", kind="h100")]
    assert interchangeable_gpus([1], typed, gpus) == {"GPU-1"}


def test_a_lost_gpu_is_no_choice_and_refuses_a_job_only_where_it_is_needed() -> None:
    left = [gpu for gpu in NODE if gpu.uuid not in ("GPU-1", "MIG-2:0")]
    assert interchangeable_gpus([2], DEVICES, left) == WHOLE - {"GPU-1"}
    assert interchangeable_gpus([0], DEVICES, left) == {"MIG-2:1"}
    with pytest.raises(InputError, match=r"Slurm gave GPU 0 .* the driver shows no MIG instance"):
        interchangeable_gpus([0, 1], DEVICES, left)
    with pytest.raises(InputError, match="Slurm gave GPU 0, but"):
        interchangeable_gpus([0], [], left)
    with pytest.raises(InputError, match="Slurm gave GPU 7, but"):
        interchangeable_gpus([7], DEVICES, left)


def test_a_gpu_whose_file_slurm_does_not_count_can_be_opened_by_every_job() -> None:
    assert not has_unlisted_gpus(DEVICES, NODE)
    assert has_unlisted_gpus(DEVICES[:4], NODE)
    # An instance's GPU is opened by a file of its own, which the capability does not name.
    by_capability = [device(f"{CAP}13"), device(f"{CAP}22"), *DEVICES[2:]]
    assert has_unlisted_gpus(by_capability, NODE)
    assert has_unlisted_gpus([], [whole(0)])
    assert has_unlisted_gpus([device("/dev/nvidia0")], [replace(whole(0), device_number=None)])
    assert not has_unlisted_gpus([], [])


CONFIGURATIONS = Path(__file__).parent / "configurations"


def instance_at(gpu: int, place: int, gpu_instance: int) -> GpuReading:
    """An instance of /dev/nvidiaN with the numbers that the driver gives it."""
    first = 3 + gpu * 15 * 9 + gpu_instance * 9
    numbers = MigDeviceNumbers(gpu, first, first + 1)
    return instance(gpu, place, numbers, f"MIG-{gpu}/{gpu_instance}")


@pytest.mark.parametrize(
    ("name", "node", "gpus", "uuids"),
    [
        (
            "mig-caps-file",
            "g2",
            [
                *(whole(index) for index in (0, 1)),
                *(instance_at(2, place, 7 + place) for place in range(7)),
                *(instance_at(3, place, 7 + place) for place in range(8)),
            ],
            [
                "GPU-0",
                "GPU-1",
                *(f"MIG-2/{number}" for number in range(7, 14)),
                *(f"MIG-3/{number}" for number in (7, 8, 9, 11, 12, 13, 14)),
            ],
        ),
        (
            "mig-multiplefiles",
            "n1",
            [*(whole(index) for index in (1, 2, 3)), instance_at(0, 0, 2), instance_at(0, 1, 3)],
            ["MIG-0/2", "MIG-0/3", "GPU-1", "GPU-2", "GPU-3"],
        ),
    ],
)
def test_configurations_as_sites_have_them(
    name: str, node: str, gpus: list[GpuReading], uuids: list[str]
) -> None:
    conf = read_node_conf(CONFIGURATIONS / name / "slurm.conf", node, node)
    devices = conf.gpu_devices or ()
    found = gpus_at_positions(range(len(uuids)), devices, gpus)
    assert [one.uuid for one in found] == uuids
    assert len(devices) == len(uuids)


NUMBER = st.integers(0, 6)
PLACES = st.lists(st.tuples(NUMBER, st.integers(0, 3), st.integers(0, 2)), max_size=6, unique=True)
FILES = st.lists(
    st.one_of(
        NUMBER.map(lambda number: f"/dev/nvidia{number}"),
        st.integers(0, 200).map(lambda number: f"{CAP}{number}"),
        st.sampled_from(["/dev/nvidiactl", "/dev/dri/card0"]),
    ),
    min_size=1,
    max_size=3,
)


@given(places=PLACES, files=FILES, unknown=st.booleans())
def test_whatever_the_files_a_position_leads_to_the_only_device_that_fits_or_nowhere(
    places: list[tuple[int, int, int]], files: list[str], unknown: bool
) -> None:
    """Places are instances by GPU, GPU instance and compute instance; other GPUs are whole."""
    divided = {gpu for gpu, _, _ in places}
    node = [whole(number) for number in range(7) if number not in divided]
    for place, (gpu, gpu_instance, compute_instance) in enumerate(places):
        first = 3 + 20 * gpu + 5 * gpu_instance
        numbers = MigDeviceNumbers(gpu, first, first + 1 + compute_instance)
        if unknown and place == 0:
            numbers = MigDeviceNumbers(gpu)
        node.append(instance(gpu, place, numbers))
    wanted_gpus = {int(file[11:]) for file in files if re.fullmatch(r"/dev/nvidia\d+", file)}
    wanted = {int(file.removeprefix(CAP)) for file in files if file.startswith(CAP)} - {1, 2}
    try:
        (found,) = gpus_at_positions([0], [device(*files)], node)
    except InputError:
        return
    (gpu,) = [one for one in node if one.uuid == found.uuid]
    numbers = gpu.mig_devices or MigDeviceNumbers(gpu.device_number)
    assert wanted <= {numbers.gpu_instance, numbers.compute_instance}
    assert wanted_gpus <= {numbers.gpu}
    assert wanted or not gpu.is_mig_instance
    fitting = [
        one
        for one in node
        if one.mig_devices
        and wanted
        and wanted <= {one.mig_devices.gpu_instance, one.mig_devices.compute_instance}
    ]
    assert len(fitting) <= 1
    assert found.device_file in files
