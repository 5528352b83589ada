"""Chains of policies as administrators write them, and what is refused with what is accepted."""

from __future__ import annotations

import pytest

from canhazgpu.config.conflict_chain import (
    Step,
    StepKind,
    chain_for_partition,
    longest_wait_s,
    parse_chain,
    parse_chains_by_partition,
    swap_error,
)
from canhazgpu.config.load import load
from canhazgpu.errors import ConfigError, InputError


def steps(*texts: str) -> tuple[Step, ...]:
    return tuple(
        Step(StepKind(kind), float(seconds or 0))
        for kind, _, seconds in (text.partition(":") for text in texts)
    )


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("requeue", steps("requeue")),
        ("wait:20,kill,requeue", steps("wait:20", "kill", "requeue")),
        (" wait:1.5 , warn ", steps("wait:1.5", "warn")),
        ("wait:10,kill,wait:10,swap,drain", steps("wait:10", "kill", "wait:10", "swap", "drain")),
        ("wait:3600", steps("wait:3600")),
    ],
)
def test_good_chains(text: str, chain: tuple[Step, ...]) -> None:
    assert parse_chain(text) == chain
    assert parse_chain(",".join(map(str, chain))) == chain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' in '' is no step"),
        ("requeue,", "'' in 'requeue,' is no step"),
        ("wait", "'wait' does not say how long to wait; accepted: as in wait:20"),
        ("wait:", "'wait:' in 'wait:' is no step"),
        ("wait:0", "wait:0 in 'wait:0' is no time to wait"),
        ("wait:3601", "above 0 and at most 3600"),
        ("wait:-1", "is no step"),
        ("wait:1e3", "is no step"),
        ("wait:٣", "is no step"),
        ("wait:1m", "is no step"),
        ("kill:5", "is no step"),
        ("Requeue", "is no step"),
        ("hold", "is no step"),
        ("end", "is no step"),
        ("kill,requeue,kill", "has kill twice"),
        ("requeue;warn", "is no step"),
        ("x" * 500, "..."),
    ],
)
def test_bad_chains_name_what_is_accepted(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_chain(text)
    assert said in str(caught.value)
    assert "accepted: " in str(caught.value)
    assert len(str(caught.value)) < 450


def test_chains_by_partition_from_a_file_and_from_the_environment() -> None:
    chains = {"gpu": steps("wait:20", "kill"), "debug": steps("warn")}
    assert parse_chains_by_partition(("gpu=wait:20,kill", "debug=warn")) == chains
    # Outside of the file a list is cut at its commas, and so are the chains in it.
    assert parse_chains_by_partition(("gpu=wait:20", "kill", "debug=warn")) == chains
    assert parse_chains_by_partition(()) == {}


@pytest.mark.parametrize(
    "words",
    [
        ("warn",),
        ("=warn",),
        ("a b=warn",),
        ("gpu=",),
        ("gpu=warn", "gpu=kill"),
        ("gpu=warm",),
        ("",),
    ],
)
def test_bad_chains_by_partition(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="accepted: "):
        parse_chains_by_partition(words)


def test_a_partition_without_a_chain_of_its_own_has_that_of_all() -> None:
    words = ("debug=warn",)
    assert chain_for_partition("requeue", words, "debug") == steps("warn")
    for other in ("gpu", "", "Debug", "debug,gpu"):
        assert chain_for_partition("requeue", words, other) == steps("requeue")


def test_the_longest_chain_counts() -> None:
    chains = [parse_chain("wait:10,kill,wait:5"), parse_chain("wait:17"), parse_chain("requeue")]
    assert longest_wait_s(chains, kill_grace_s=4) == 19
    assert longest_wait_s(chains, kill_grace_s=1) == 17
    assert longest_wait_s([parse_chain("requeue,warn")], kill_grace_s=4) == 0


def test_swap_is_refused_where_devices_are_constrained() -> None:
    swap, other = parse_chain("wait:5,swap"), parse_chain("requeue")
    assert "ConstrainDevices=yes" in swap_error([other, swap], constrained=True)
    assert swap_error([other, swap], constrained=False) == ""
    assert swap_error([other], constrained=True) == ""


def configured(**slurm: str) -> None:
    load({f"CANHAZGPU_SLURM_{name.upper()}": value for name, value in slurm.items()})


@pytest.mark.parametrize(
    "slurm",
    [
        {},
        {"on_conflict": "wait:30"},
        {"on_conflict": "wait:25,kill"},
        {"on_conflict": "wait:60", "hook_deadline_s": "75"},
        {"hook_deadline_s": "5"},
    ],
)
def test_waits_that_the_hook_has_time_for(slurm: dict[str, str]) -> None:
    configured(**slurm)


@pytest.mark.parametrize(
    "slurm",
    [
        {"on_conflict": "wait:31"},
        {"on_conflict": "wait:20,kill,wait:6"},
        {"on_conflict": "wait:30", "hook_deadline_s": "44"},
        {"on_conflict_by_partition": "debug=warn,gpu=wait:31"},
        {"on_conflict": "kill", "kill_grace_s": "31"},
    ],
)
def test_waits_that_the_hook_has_no_time_for(slurm: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"slurm\.hook_deadline_s is \d+: wait less, or raise it"):
        configured(**slurm)


@pytest.mark.parametrize(
    ("key", "value"),
    [("on_conflict", "wat"), ("on_conflict", "wait"), ("on_conflict_by_partition", "gpu")],
)
def test_a_bad_chain_is_a_fault_of_the_configuration(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"slurm.{key} = .* is not accepted; accepted: "):
        configured(**{key: value})
