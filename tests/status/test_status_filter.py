"""Which GPUs and nodes a filter shows, and what a wrong value suggests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.status.node_status import NodeStatus, node_status
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.table_cells import heading_text, queue_text
from canhazgpu.status.unknown_values import models_hint, refuse_unknown_values
from canhazgpu.status.user_filter import User

NOW = 1000.0
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


def reading(index: int, product: str = "NVIDIA H100", *processes: GpuProcess) -> GpuReading:
    used_mb = 9000 if processes else 45
    return GpuReading(index, f"GPU-{index}", index, product, used_mb, 80000, processes)


def process(user: str, model: str | None = None) -> GpuProcess:
    return GpuProcess(5, None, user, "python3", 8000, model)


def node(name: str, *readings: GpuReading, **more: object) -> NodeStatus:
    view = NodeView(name, NOW, Scan(name, 0.0, 0.1, readings), NOW - 1, **more)  # type: ignore[arg-type]
    return node_status(view, UsagePolicy(1024))


QUEUE = (Waiter("run:1", "dora", None, 1, ("GPU-3",), since=990.0, renewed_at=999.0),)
N1 = node(
    "n1",
    reading(0),
    reading(1, "NVIDIA H100", process("alice", LLAMA)),
    reading(2, "NVIDIA A100", process("bob")),
    reading(3),
    reservations={"GPU-1": Reservation("GPU-1", Claim("o", "run", "alice"), NOW - 60)},
    quarantines={"GPU-3": Quarantine("GPU-3", "fan", NOW - 5)},
    queue=QUEUE,
    partitions=("debug", "gpu"),
)
N2 = node("n2", reading(0), partitions=("gpu",))
N3 = node("n3", reading(0, "NVIDIA A100"))
NODES = (N1, N2, N3)

AVAILABLE, UNRESERVED = frozenset({GpuState.AVAILABLE}), frozenset({GpuState.UNRESERVED})


def user(*names: str) -> tuple[User, ...]:
    return tuple(User(None, name) for name in names)


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        (StatusFilter(), ["n1:0", "n1:1", "n1:2", "n1:3", "n2:0", "n3:0"]),
        (StatusFilter(states=AVAILABLE), ["n1:0", "n2:0", "n3:0"]),
        (StatusFilter(states=AVAILABLE | UNRESERVED), ["n1:0", "n1:2", "n2:0", "n3:0"]),
        (StatusFilter(users=user("alice")), ["n1:1"]),
        (StatusFilter(users=user("alice", "bob")), ["n1:1", "n1:2"]),
        (StatusFilter(users=user("alice"), states=AVAILABLE), []),
        (StatusFilter(users=user("alice", "bob"), states=UNRESERVED), ["n1:2"]),
        (StatusFilter(partitions=frozenset({"gpu"}), states=AVAILABLE), ["n1:0", "n2:0"]),
        (StatusFilter(partitions=frozenset({"debug", "x"}), states=AVAILABLE), ["n1:0"]),
        (StatusFilter(models=("a100",)), ["n1:2", "n3:0"]),
        (StatusFilter(models=("LLAMA-2",)), ["n1:1"]),
        (StatusFilter(models=("meta-llama/",)), ["n1:1"]),
        (StatusFilter(models=("llama-2-7b-chat",)), ["n1:1"]),
        (StatusFilter(models=("llama", "A100")), ["n1:1", "n1:2", "n3:0"]),
        (StatusFilter(models=("h100",), states=AVAILABLE), ["n1:0", "n2:0"]),
        (StatusFilter(models=("gpt",)), []),
        # A model on a GPU whose reading is of the time before the grant says nothing of now.
        (StatusFilter(models=("",)), ["n1:0", "n1:1", "n1:2", "n1:3", "n2:0", "n3:0"]),
    ],
)
def test_filters(chosen: StatusFilter, shown: list[str]) -> None:
    found = chosen.apply(NODES)

    assert [f"{one.node}:{gpu.index}" for one in found for gpu in one.gpus] == shown
    assert all(one.gpus for one in found)


def test_partitions_alone_show_nodes_without_gpus_too() -> None:
    empty = node("n4", partitions=("gpu",))
    found = StatusFilter(partitions=frozenset({"gpu"})).apply([*NODES, empty])
    assert [one.node for one in found] == ["n1", "n2", "n4"]


def test_who_only_waits_is_shown_unless_a_state_is_asked_for() -> None:
    (found,) = StatusFilter(users=user("dora")).apply(NODES)
    assert (found.node, found.gpus, found.queue) == ("n1", (), QUEUE)
    assert StatusFilter(users=user("dora"), states=AVAILABLE).apply(NODES) == []
    # Of others' GPUs, the queue of others is not shown.
    (found,) = StatusFilter(users=user("alice")).apply(NODES)
    assert found.queue == ()
    # A state says nothing of the queue, which stays.
    assert StatusFilter(states=AVAILABLE).apply(NODES)[0].queue == QUEUE


def test_what_a_filter_leaves_out_is_not_missing() -> None:
    (found, *_) = StatusFilter(states=AVAILABLE).apply([replace(N1, live=True, expected_gpus=4)])
    assert (len(found.gpus), len(found.all_gpus), found.found_gpus) == (1, 4, 4)
    assert heading_text(found) == "n1"
    assert queue_text(found) == "1 waiting: dora GPU 3 (10s)"


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (
            StatusFilter(partitions=frozenset({"gpus"})),
            "no node has published a partition 'gpus'; did you mean 'gpu'? known: debug, gpu",
        ),
        (
            StatusFilter(users=user("allice")),
            "there is no user 'allice' here or on the nodes shown; did you mean 'alice'?"
            " known: alice, bob, dora",
        ),
        (
            StatusFilter(users=user("zz")),
            "there is no user 'zz' here or on the nodes shown; known: alice, bob, dora",
        ),
    ],
)
def test_unknown_values_suggest_the_right_ones(chosen: StatusFilter, text: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_unknown_values(chosen, NODES)
    assert str(caught.value) == text


def test_where_nothing_is_published_the_error_says_who_publishes() -> None:
    with pytest.raises(InputError, match="run 'canhazgpu-healthcheck' as root"):
        refuse_unknown_values(StatusFilter(partitions=frozenset({"gpu"})), [N3])
    with pytest.raises(InputError, match="nobody holds, uses or awaits a GPU"):
        refuse_unknown_values(StatusFilter(users=user("x")), [N3])


def test_known_values_are_no_error() -> None:
    refuse_unknown_values(StatusFilter(partitions=frozenset({"gpu", "debug"})), NODES)
    refuse_unknown_values(StatusFilter(users=(*user("dora", "bob"), User(1234, "away"))), NODES)
    refuse_unknown_values(StatusFilter(models=("gpt",)), NODES)


def test_many_known_values_are_not_all_listed() -> None:
    nodes = [replace(N3, partitions=tuple(f"p{number:02}" for number in range(13)))]
    with pytest.raises(InputError, match=r"known: p00, .*, p09 and 3 more$"):
        refuse_unknown_values(StatusFilter(partitions=frozenset({"x"})), nodes)


def test_a_model_that_no_gpu_has_suggests_one() -> None:
    known = "known: NVIDIA A100, NVIDIA H100, llama-2-7b-chat"
    found = models_hint(("a100", "lama2-7b-chat"), NODES)
    assert found == f"; did you mean 'llama-2-7b-chat'? {known}"
    assert models_hint(("a100",), NODES) == ""
    assert models_hint(("x",), []) == ""
