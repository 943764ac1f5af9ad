# SPDX-License-Identifier: Apache-2.0
"""Value classes as dataclasses has them, at a tenth of the cost of defining them.

dataclasses imports inspect, and compiles the methods of each class anew in every process that
imports it: with the classes of the configuration and the launch plan 25 ms, more than half of what
a cold launch may take. Here the methods of all classes are the same functions. It has what redpak
uses of dataclasses, by the same names, and type checkers are shown those.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import replace as replace
else:
    _MISSING = object()

    class FrozenError(AttributeError):
        """A value cannot be changed."""

    class Field:
        """One member of a class."""

        __slots__ = ("default", "default_factory", "hash", "metadata", "name")

        def __init__(self, default, default_factory, hash, metadata):
            self.name = ""
            self.default = default
            self.default_factory = default_factory
            self.hash = hash
            self.metadata = metadata

    def field(*, default=_MISSING, default_factory=None, hash=True, metadata=None):
        """What dataclasses.field gives."""
        return Field(default, default_factory, hash, metadata or {})

    def fields(cls):
        """The members of a class or value, in order."""
        return tuple(cls.__value_fields__.values())

    def replace(value, /, **changes):
        """A copy of `value` with some members changed."""
        return type(value)(**{**value.__dict__, **changes})

    def dataclass(cls=None, *, frozen=False):
        """Give a class the methods of a value, made from the annotations of its members."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen)
        known = dict(getattr(cls, "__value_fields__", {}))
        own = cls.__dict__.get("__annotations__")  # noqa: RUF063 - not on Python 3.9
        for name in cls.__annotations__ if own is None and _HAS_OWN else own or ():
            default = cls.__dict__.get(name, _MISSING)
            member = default if isinstance(default, Field) else Field(default, None, True, {})
            member.name = name
            known[name] = member
            if member.default is not _MISSING:
                setattr(cls, name, member.default)
            elif default is member:
                delattr(cls, name)
        cls.__value_fields__ = known
        cls.__value_optional__ = tuple((name, member) for name, member in known.items() if
                                       member.default is not _MISSING or member.default_factory)
        for method in (_init, _repr, _eq):
            setattr(cls, f"_{method.__name__}__", method)
        cls.__hash__ = _hash if frozen else None
        if frozen:
            cls.__setattr__ = cls.__delattr__ = _refuse
        return cls

    import sys

    # Before Python 3.10 a class without annotations shows those of its base.
    _HAS_OWN = sys.version_info >= (3, 10)

    def _init(self, *args, **given):
        known, values = self.__value_fields__, self.__dict__
        values.update(zip(known, args))
        values.update(given)
        if len(values) != len(args) + len(given):
            raise TypeError(f"{type(self).__name__}() got too many arguments, or one twice")
        if len(values) < len(known):
            for name, member in self.__value_optional__:
                if name not in values:
                    factory = member.default_factory
                    values[name] = factory() if factory is not None else member.default
        if len(values) != len(known) or (given and values.keys() != known.keys()):
            names = ", ".join(sorted(values.keys() ^ known.keys()))
            raise TypeError(f"{type(self).__name__}() misses, or does not know, {names}")

    def _repr(self):
        members = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.__value_fields__)
        return f"{type(self).__qualname__}({members})"

    def _eq(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def _hash(self):
        return hash(tuple(self.__dict__[name] for name, member in self.__value_fields__.items()
                          if member.hash))

    def _refuse(self, name, *_):
        raise FrozenError(f"{type(self).__name__}.{name} cannot be changed")
