"""JSON values into the generated dataclasses, or a sentence that says which key is wrong. Standard library only."""

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from . import _wire as wire
from .errors import BridgeError

T = TypeVar("T")


def job_from_dict(value: object) -> wire.Job:
    """Decode a job by its ``type``.

    Raises:
        BridgeError: ``BAD_JOB`` if a key is missing or unknown or has another type, at any depth.
    """
    classes: dict[str, type[wire.Job]] = {_type_of(cls): cls for cls in get_args(wire.Job)}
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in classes:
        raise BridgeError("BAD_JOB", f"job.type: expected one of {', '.join(classes)}, got {kind!r}")
    return from_dict(classes[kind], value)


def _type_of(cls: type[Any]) -> str:
    (kind,) = get_args(get_type_hints(cls)["type"])
    return kind


def from_dict(cls: type[T], value: object, path: str = "job") -> T:
    """Decode a dataclass, strictly.

    Args:
        cls: A dataclass of ``_wire``.
        value: What ``json.loads`` gave.
        path: What the value is called in messages.

    Raises:
        BridgeError: ``BAD_JOB`` if a key is missing or unknown or has another type, at any depth. A constructor
            call would take a list for a string and fail much later.
    """
    if not isinstance(value, dict):
        raise _mismatch(path, cls.__name__, value)
    hints = get_type_hints(cls)
    unknown = sorted(value.keys() - hints.keys())
    missing = sorted(hints.keys() - value.keys())
    if unknown or missing:
        faults = [f"unknown {key}" for key in unknown] + [f"missing {key}" for key in missing]
        raise BridgeError("BAD_JOB", f"{path}: {', '.join(faults)}")
    names = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
    return cls(**{name: _decode(hints[name], value[name], f"{path}.{name}") for name in names})


def _decode(hint: Any, value: object, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), value, path)
    if origin is Literal:
        if not any(type(value) is type(option) and value == option for option in get_args(hint)):
            raise _mismatch(path, " | ".join(repr(option) for option in get_args(hint)), value)
        return value
    if origin is list:
        if not isinstance(value, list):
            raise _mismatch(path, "list", value)
        (item,) = get_args(hint)
        return [_decode(item, element, f"{path}[{index}]") for index, element in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(path, "object", value)
        _, item = get_args(hint)
        return {key: _decode(item, element, f"{path}.{key}") for key, element in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, path)
    return _decode_scalar(hint, value, path)


def _decode_union(options: tuple[Any, ...], value: object, path: str) -> Any:
    """The options of one union differ in the JSON kind of their values, so that decides."""
    for option in options:
        if _is_kind(option, value):
            return _decode(option, value, path)
    raise _mismatch(path, " | ".join(_name(option) for option in options), value)


def _decode_scalar(hint: Any, value: object, path: str) -> Any:
    if _is_kind(hint, value):
        return value
    raise _mismatch(path, _name(hint), value)


def _is_kind(hint: Any, value: object) -> bool:
    """Whether a value is of the JSON kind of a type.

    An integer is a number too and stays an int: a template would print 1.0 for 1 otherwise.
    """
    kind = get_origin(hint) or hint
    if is_dataclass(kind):
        return isinstance(value, dict)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _name(hint: Any) -> str:
    kind = get_origin(hint) or hint
    return "null" if kind is types.NoneType else kind.__name__


def _mismatch(path: str, expected: str, value: object) -> BridgeError:
    found = "null" if value is None else f"{type(value).__name__} {value!r:.80}"
    return BridgeError("BAD_JOB", f"{path}: expected {expected}, got {found}")
