"""What somebody who waits is told, and whether a try could succeed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.allocation.queue_position import (
    cannot_be_satisfied,
    fits_by_ledger,
    position_in_queue,
    waiting_text,
)
from canhazgpu.allocation.refusal import Refusal
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter

NOW = 1000.0
SCAN = Scan("n1", 0.0, 0.0, tuple(GpuReading(i, f"GPU-{i}", i, "H100", 0, 80000) for i in range(4)))
ANN = Waiter("run:ann", "ann", 1, 2)
BOB = Waiter("run:bob", "bob", 2, 1, gpus=("GPU-3",))
REFUSAL = Refusal("Not enough GPUs available. Requested: 2, Available: 1", ("GPU 1 is bob's",))


def held(index: int, user: str, type_: str = "run", **more: float | None) -> Reservation:
    claim = Claim(f"{type_}:{user}", type_, user, job_id="7" if type_ == "slurm" else None)
    return Reservation(f"GPU-{index}", claim, NOW - 60, **more)


def view(*reservations: Reservation, queue: tuple[Waiter, ...] = (ANN, BOB)) -> NodeView:
    held_gpus = {one.gpu: one for one in reservations}
    return NodeView("n1", NOW, SCAN, NOW, held_gpus, queue=queue)


def test_the_position_counts_from_one() -> None:
    assert [position_in_queue(view(), owner) for owner in ("run:ann", "run:bob", "run:eve")] == [
        1,
        2,
        None,
    ]


@pytest.mark.parametrize(
    ("waiter", "reserved", "fits"),
    [
        (ANN, (), True),
        (ANN, (0, 1), True),
        (ANN, (0, 1, 2), False),
        (BOB, (0, 1, 2), True),
        (BOB, (3,), False),
    ],
)
def test_whether_the_ledger_has_enough(
    waiter: Waiter, reserved: tuple[int, ...], fits: bool
) -> None:
    assert fits_by_ledger(view(*(held(i, "eve") for i in reserved)), waiter) is fits


def test_a_quarantined_gpu_is_none_that_fits() -> None:
    held_back = {f"GPU-{i}": Quarantine(f"GPU-{i}", "ecc", NOW) for i in (1, 2, 3)}
    quarantined = replace(view(), quarantines=held_back)
    assert not fits_by_ledger(quarantined, ANN)
    assert not fits_by_ledger(quarantined, BOB)
    assert "quarantined" in waiting_text(quarantined, ANN, 1, REFUSAL, times=True)


def test_a_request_is_hopeless_where_too_many_gpus_need_a_hand() -> None:
    held_back = {f"GPU-{i}": Quarantine(f"GPU-{i}", "ecc", NOW) for i in (1, 2, 3)}
    assert cannot_be_satisfied(replace(view(), quarantines=held_back), ANN)
    assert cannot_be_satisfied(replace(view(), quarantines=held_back), BOB)
    # What is reserved too will be released, and is then looked at again.
    assert not cannot_be_satisfied(replace(view(held(1, "eve")), quarantines=held_back), ANN)
    two = dict(list(held_back.items())[:2])
    assert not cannot_be_satisfied(replace(view(), quarantines=two), ANN)
    lost = tuple(replace(gpu, fault="GPU is lost") for gpu in SCAN.gpus[1:])
    broken = replace(view(), scan=replace(SCAN, gpus=(SCAN.gpus[0], *lost)))
    assert cannot_be_satisfied(broken, ANN)
    assert not cannot_be_satisfied(replace(view(), scan=None), ANN)


def test_a_node_never_scanned_is_worth_a_try() -> None:
    assert fits_by_ledger(replace(view(), scan=None), ANN)


def test_the_first_is_told_who_holds_its_gpus() -> None:
    busy = view(
        held(0, "eve"), held(1, "dan", "manual", expires_at=NOW + 300), held(2, "cleo", "slurm")
    )
    assert waiting_text(busy, ANN, 1, REFUSAL, times=True) == (
        "waiting for 2 GPUs on n1: next in the queue;"
        " held by dan (manual, expires in 5m), eve (run), cleo (slurm job 7)"
    )


def test_what_merely_passes_can_be_left_out() -> None:
    busy = view(held(0, "x"), held(1, "dan", "manual", expires_at=NOW + 300), held(2, "eve"))
    assert "expires" not in waiting_text(busy, ANN, 1, REFUSAL, times=False)


def test_a_long_list_of_holders_is_cut() -> None:
    busy = view(*(held(i, f"u{i}") for i in range(4)))
    text = waiting_text(busy, ANN, 1, REFUSAL, times=True)
    assert text.endswith("held by u0 (run), u1 (run), u2 (run) and 1 more")


def test_one_holder_of_several_gpus_is_named_once() -> None:
    busy = view(held(0, "eve"), held(1, "eve"), held(2, "eve"))
    assert waiting_text(busy, ANN, 1, REFUSAL, times=True).endswith("held by eve (run)")


def test_only_the_holders_of_the_gpus_wanted_matter() -> None:
    busy = view(held(0, "eve"), held(3, "dan"), queue=(BOB,))
    text = waiting_text(busy, BOB, 1, REFUSAL, times=True)
    assert text == "waiting for GPU-3 on n1: next in the queue; held by dan (run)"


def test_where_the_ledger_has_enough_the_scan_says_what_is_in_the_way() -> None:
    text = waiting_text(view(), ANN, 1, REFUSAL, times=True)
    assert text == f"waiting for 2 GPUs on n1: next in the queue; {REFUSAL.text}"


def test_others_are_told_their_position_and_the_first() -> None:
    text = waiting_text(view(), BOB, 2, REFUSAL, times=True)
    assert text == "waiting for GPU-3 on n1: position 2 of 2, the first is ann for 2 GPUs"


def test_one_gpu_is_no_plural() -> None:
    one = replace(ANN, count=1)
    text = waiting_text(view(), one, None, REFUSAL, times=True)
    assert text == "waiting for 1 GPU on n1: joining the queue"


MIG_SCAN = replace(
    SCAN,
    gpus=(
        *SCAN.gpus[:2],
        *(
            GpuReading(2, f"MIG-{i}", None, "H100 MIG 1g.10gb", 0, 9000, mig_index=i)
            for i in range(2)
        ),
    ),
)
TWO_INSTANCES = replace(ANN, profile="1G.10gb")


def mig_view(*gpus: str, quarantined: tuple[str, ...] = ()) -> NodeView:
    claim = Claim("run:eve", "run", "eve")
    return NodeView(
        "n1",
        NOW,
        MIG_SCAN,
        NOW,
        {gpu: Reservation(gpu, claim, NOW) for gpu in gpus},
        quarantines={gpu: Quarantine(gpu, "broken", NOW) for gpu in quarantined},
    )


@pytest.mark.parametrize(
    ("waiter", "reserved", "fits"),
    [
        (ANN, ("MIG-0", "MIG-1"), True),
        (ANN, ("GPU-0",), False),
        (TWO_INSTANCES, ("GPU-0", "GPU-1"), True),
        (TWO_INSTANCES, ("MIG-1",), False),
        (replace(TWO_INSTANCES, count=1), ("MIG-1",), True),
        (replace(TWO_INSTANCES, profile="3g.40gb"), (), False),
    ],
)
def test_a_waiter_waits_for_its_own_kind(
    waiter: Waiter, reserved: tuple[str, ...], fits: bool
) -> None:
    assert fits_by_ledger(mig_view(*reserved), waiter) == fits


def test_what_is_quarantined_of_the_other_kind_is_no_reason_to_give_up() -> None:
    broken = mig_view(quarantined=("MIG-0",))
    assert not cannot_be_satisfied(broken, ANN)
    assert cannot_be_satisfied(broken, TWO_INSTANCES)


def test_who_waits_for_instances_is_told_so_and_of_their_holders_alone() -> None:
    text = waiting_text(mig_view("GPU-0", "MIG-1"), TWO_INSTANCES, 1, REFUSAL, times=False)
    assert text.startswith("waiting for 2 MIG instances 1G.10gb on n1: next in the queue; held by")
    one = replace(TWO_INSTANCES, count=1)
    assert waiting_text(mig_view(), one, None, REFUSAL, times=False) == (
        "waiting for 1 MIG instance 1G.10gb on n1: joining the queue"
    )
