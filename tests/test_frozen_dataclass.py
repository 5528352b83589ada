"""Frozen dataclasses are those of the standard library, made faster."""

from __future__ import annotations

import copy
import dataclasses
import inspect
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
    lambda nothing, one, three: [
        [(name, str(each.kind)) for name, each in inspect.signature(made).parameters.items()]
        for made in (nothing, one, three)
    ],
    lambda nothing, one, three: three(third=[5], first=1, second="b").second,
    lambda nothing, one, three: three(1, other=2),
    lambda nothing, one, three: three(second="b"),
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


def test_classes_with_as_many_fields_have_their_own_names_and_values() -> None:
    @quick(frozen=True, slots=True)
    class Late:
        one: int = 1
        two: list[int] = dataclasses.field(default_factory=list)

    @quick(frozen=True, slots=True)
    class Later:
        three: int = 3
        four: list[int] = dataclasses.field(default_factory=lambda: [4])

    assert repr(Late()).endswith("Late(one=1, two=[])")
    assert repr(Later(four=[])).endswith("Later(three=3, four=[])")
    assert repr(Later(5)).endswith("Later(three=5, four=[4])")


def test_a_field_with_a_default_comes_last() -> None:
    def make(dataclass: Decorator) -> type:
        @dataclass(frozen=True, slots=True)
        class Wrong:
            one: int = 1
            two: int  # type: ignore[misc]

        return Wrong

    for dataclass in (quick, dataclasses.dataclass):
        with pytest.raises(TypeError, match="non-default argument 'two' follows default argument"):
            make(dataclass)
