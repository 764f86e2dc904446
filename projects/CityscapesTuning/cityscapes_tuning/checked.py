"""Plain values, as a YAML file has them, as dataclasses: every key and every value is checked by the field's type."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gan_plugin.errors import UserError

_T = TypeVar("_T")
_MOST_NAMED = 20
_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def checked(kind: type[_T], content: Any, where: str) -> _T:
    """A dataclass from a mapping.

    Fields may be bool, int, float, str, Any, dataclasses, `Sequence[...]`, `dict[str, ...]`, or one of these or None.
    Their metadata may have "least" or "above", bounds of a number, and "choices".

    Args:
        kind: the dataclass. A key that is absent, or null, has its default.
        content: the mapping, or None for an empty one.
        where: the keys that lead to it, with dots between; "" at the top.

    Raises:
        UserError: a key is unknown, or a value is not what the field takes; the sentence names the key.
    """
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    content = {} if content is None else content
    if not isinstance(content, Mapping):
        raise UserError(f"{where} is {content!r}; give a mapping with some of {', '.join(known)}.")
    if unknown := [key for key in content if key not in known]:
        raise unknown_key(where or "The study", str(unknown[0]), known)
    hints, values = get_type_hints(kind), {}
    for key, value in content.items():
        of_field = _without_none(hints[key])
        if value is not None or is_dataclass(of_field):
            place = f"{where}.{key}" if where else key
            values[key] = _value(of_field, value, place)
            _check_bounds(known[key], values[key], place)
    for key, entry in known.items():
        if key not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"{where or 'The study'} lacks `{key}`; give {_name(_without_none(hints[key]))}.")
    return kind(**values)


def unknown_key(where: str, key: str, known: Iterable[str]) -> UserError:
    """The error for a key that `where` does not have, with the known one that comes nearest."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    all_known = f"the keys are {', '.join(known)}" if len(known) <= _MOST_NAMED else "see the config of the study"
    hint = f"did you mean {near[0]!r}?" if near else f"{all_known}."
    return UserError(f"{where} has a key {key!r}, which is unknown; {hint}")


def _without_none(kind: Any) -> Any:
    left = [part for part in get_args(kind) if part is not type(None)]
    return left[0] if type(None) in get_args(kind) else kind


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return checked(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping | None):
            raise UserError(f"{where} is {value!r}; give {_name(kind)}.")
        return {str(key): _value(get_args(kind)[1], entry, f"{where}.{key}") for key, entry in (value or {}).items()}
    if get_origin(kind) is Sequence:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{where} is {value!r}; give {_name(kind)}.")
        return tuple(_value(get_args(kind)[0], entry, where) for entry in value)
    return _plain(kind, value, where)


def _plain(kind: type, value: Any, where: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str and (isinstance(value, str) or is_number):
        return str(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and is_number and math.isfinite(value) and (kind is float or value == int(value)):
        return kind(value)
    hint = ""
    if kind is float and isinstance(value, str):
        hint = ", and write 1e-3 as 1.0e-3, or YAML reads it as text"
    raise UserError(f"{where} is {value!r}; give {_NAMES[kind]}{hint}.")


def _name(kind: Any) -> str:
    """What a field takes, in words."""
    if get_origin(kind) is Sequence:
        return f"a list, each entry {_name(get_args(kind)[0])}"
    return _NAMES.get(kind, "a mapping")


def _check_bounds(entry: Field, value: Any, where: str) -> None:
    least, above, choices = (entry.metadata.get(key) for key in ("least", "above", "choices"))
    for number in value if isinstance(value, tuple) else (value,):
        if least is not None and number < least:
            raise UserError(f"{where} is {value!r}; give {least} or more.")
        if above is not None and number <= above:
            raise UserError(f"{where} is {value!r}; give more than {above}.")
    if choices and value not in choices:
        raise UserError(f"{where} is {value!r}; set it to one of {', '.join(choices)}.")
