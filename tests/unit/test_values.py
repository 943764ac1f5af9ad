# SPDX-License-Identifier: Apache-2.0
"""redpak.values is to its users what dataclasses is: each test holds for both."""

from __future__ import annotations

import dataclasses
import pickle
from types import ModuleType
from typing import Any

import pytest

from redpak import values


def make_classes(module: Any) -> tuple[Any, Any]:
    @module.dataclass(frozen=True)
    class Base:
        origin: str

    @module.dataclass(frozen=True)
    class Point(Base):
        x: int
        y: int = 2
        names: dict[str, str] = module.field(default_factory=dict, hash=False)
        tag: str = module.field(default="t", metadata={"tag": {"key": "k"}})

        @property
        def both(self) -> int:
            return self.x + self.y

    return Base, Point


@dataclasses.dataclass(frozen=True)
class Plain:
    x: int


@values.dataclass(frozen=True)
class Own:
    x: int


@pytest.fixture(params=[dataclasses, values], ids=["dataclasses", "values"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    return found


def test_members_are_given_by_place_or_name_or_default(module: ModuleType) -> None:
    _, point = make_classes(module)
    value = point("o", 1, names={"a": "b"})
    assert (value.origin, value.x, value.y, value.names, value.tag) == ("o", 1, 2, {"a": "b"}, "t")
    assert point("o", 1).names is not point("o", 1).names
    assert value.both == 3


@pytest.mark.parametrize(("args", "given"), [
    ((), {}), (("o",), {}), (("o", 1, 2, {}, "t", 6), {}), (("o", 1), {"z": 1}),
    (("o", 1), {"x": 1}), (("o", 1, 2, {}, "t"), {"tag": "u"}), (("o",), {"y": 1})])
def test_wrong_arguments_are_refused(
        module: ModuleType, args: tuple[Any, ...], given: dict[str, Any]) -> None:
    _, point = make_classes(module)
    with pytest.raises(TypeError):
        point(*args, **given)


def test_values_are_equal_by_content_and_hashable(module: ModuleType) -> None:
    base, point = make_classes(module)
    assert point("o", 1) == point("o", x=1)
    assert point("o", 1) != point("o", 2) and point("o", 1) != base("o")
    assert hash(point("o", 1, names={"a": "b"})) == hash(point("o", 1))
    assert repr(base("o")).endswith("Base(origin='o')")


def test_frozen_values_cannot_be_changed(module: ModuleType) -> None:
    _, point = make_classes(module)
    value = point("o", 1)
    with pytest.raises(AttributeError):
        value.x = 2
    with pytest.raises(AttributeError):
        del value.x
    changed = module.replace(value, x=2)
    assert (value.x, changed.x, changed.origin) == (1, 2, "o")
    with pytest.raises(TypeError):
        module.replace(value, nothing=1)


def test_members_are_listed_in_order_with_their_metadata(module: ModuleType) -> None:
    _, point = make_classes(module)
    listed = module.fields(point)
    assert [member.name for member in listed] == ["origin", "x", "y", "names", "tag"]
    assert listed[4].metadata["tag"] == {"key": "k"} and listed[4].default == "t"
    assert point.y == 2 and not hasattr(point, "names")


def test_a_value_that_is_not_frozen_changes_and_has_no_hash(module: ModuleType) -> None:
    @module.dataclass  # type: ignore[untyped-decorator]
    class Open:
        x: int = 1

    value = Open()
    value.x = 2
    assert value == Open(2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        hash(value)


@pytest.mark.parametrize("value", [Plain(1), Own(1)])
def test_values_can_be_pickled(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
