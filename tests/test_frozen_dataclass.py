"""Frozen dataclasses are those of the standard library, made faster."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from canhazgpu.frozen_dataclass import dataclass as quick

Decorator = Callable[..., Callable[[type], type]]


def make_classes(dataclass: Decorator) -> tuple[type, type, type]:
    @dataclass(frozen=True, slots=True)
    class Nothing:
        pass

    @dataclass(frozen=True, slots=True)
    class One:
        value: object

        def __post_init__(self) -> None:
            if self.value == "refused":
                raise ValueError(self.value)

    @dataclass(frozen=True, slots=True, order=True)
    class Three:
        first: int
        second: str = "s"
        third: list[int] = dataclasses.field(default_factory=list, repr=False, compare=False)

        @property
        def total(self) -> int:
            return self.first + len(self.third)

    return Nothing, One, Three


QUICK, STANDARD = make_classes(quick), make_classes(dataclasses.dataclass)
Nothing, One, Three = QUICK
Nothing.__qualname__, One.__qualname__, Three.__qualname__ = "Nothing", "One", "Three"
"""Where pickle finds them."""

QUESTIONS: list[Callable[[Any, Any, Any], object]] = [
    lambda nothing, one, three: (nothing() == nothing(), hash(nothing()) == hash(nothing())),
    lambda nothing, one, three: (one(1) == one(1), one(1) == one(2), hash(one(1)) == hash(one(1))),
    lambda nothing, one, three: one(1) == three(1),
    lambda nothing, one, three: one(1) != 1,
    lambda nothing, one, three: one(value=1).value,
    lambda nothing, one, three: one("refused"),
    lambda nothing, one, three: one(),
    lambda nothing, one, three: one(1, 2),
    lambda nothing, one, three: hash(one([])),
    lambda nothing, one, three: hash(three(1)) == hash((1, "s")),
    lambda nothing, one, three: (three(1).second, three(1).third, three(1, third=[5]).total),
    lambda nothing, one, three: three(1).third is three(1).third,
    lambda nothing, one, three: three(1, third=[1]) == three(1, third=[2]),
    lambda nothing, one, three: sorted([three(2), three(1, "b"), three(1, "a")])[0].second,
    lambda nothing, one, three: (three(1) <= three(1), three(1) > three(1), three(1) >= three(2)),
    lambda nothing, one, three: three(1) < one(1),
    lambda nothing, one, three: one(1) < one(2),
    lambda nothing, one, three: [repr(each).rpartition(".")[2] for each in (one("x"), three(1))],
    lambda nothing, one, three: three.__match_args__,
    lambda nothing, one, three: [(each.name, each.type) for each in dataclasses.fields(three)],
    lambda nothing, one, three: dataclasses.asdict(three(1, "b", [2])),
    lambda nothing, one, three: dataclasses.replace(three(1), second="c").second,
    lambda nothing, one, three: three(1, "b", [2]).__slots__,
    lambda nothing, one, three: setattr(three(1), "first", 2),
    lambda nothing, one, three: delattr(three(1), "first"),
    lambda nothing, one, three: copy.copy(three(1, "b", [2])).third,
    lambda nothing, one, three: copy.deepcopy(three(1, "b", [2])).third,
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_they_answer_as_the_standard_librarys(
    question: Callable[[Any, Any, Any], object],
) -> None:
    assert answer(question, QUICK) == answer(question, STANDARD)


def answer(question: Callable[[Any, Any, Any], object], classes: tuple[type, ...]) -> object:
    """Return the answer, or the error as its type and text."""
    try:
        return question(*classes)
    except (TypeError, ValueError, AttributeError) as exc:
        return type(exc), str(exc).replace("make_classes.<locals>.", "")


def test_they_are_pickled() -> None:
    assert pickle.loads(pickle.dumps(Three(1, "b", [2]))).total == 2


def test_nothing_is_added_to_an_object() -> None:
    with pytest.raises(AttributeError):
        Three(1).other = 2


@pytest.mark.slow
def test_other_kinds_are_the_standard_librarys() -> None:
    with pytest.raises(TypeError, match="frozen=True, slots=True"):
        quick(frozen=False, slots=True)
