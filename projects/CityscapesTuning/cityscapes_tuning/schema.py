"""A study's YAML file through pydantic: every key and value at any depth, and one sentence about what is wrong."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from gan_plugin.errors import UserError

_T = TypeVar("_T", bound="Section")
_MOST_NAMED, _LONGEST = 20, 80
_NAME = re.compile(r"\w[\w+.,=@() -]*")
_WORDS = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number that is not infinite",
    "string": "a text",
    "dict": "a mapping",
    "tuple": "a list",
}


class Section(BaseModel):
    """A mapping of the file; what is absent, or null, has its default, and what is unknown is refused."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        content = {} if content is None else content
        if isinstance(content, cls):
            return content
        if not isinstance(content, Mapping):
            raise PydanticCustomError("value", "give a mapping with some of {known}", {"known": ", ".join(known)})
        if unknown := [key for key in content if key not in known]:
            raise PydanticCustomError("key", "{said}", {"said": said_of_key(str(unknown[0]), known)})
        return {key: value for key, value in content.items() if value is not None}


def refuse(kind: str, said: str) -> PydanticCustomError:
    """A validator's error; it goes on after "PATH is VALUE; " as a "value", "PATH " as a "key", "PATH." as "below"."""
    return PydanticCustomError(kind, "{said}", {"said": said})


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or value != value.strip() or value.endswith("."):
        raise refuse(
            "value", "a name is letters, digits and any of + - _ . , = @ ( ), and it begins with a letter or digit"
        )
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# YAML reads 2021 as a number, and on as True
Text = Annotated[str, BeforeValidator(_text)]
# of a variant, an arm, a factor, a level: a folder's too, so no path
Name = Annotated[str, BeforeValidator(_text), AfterValidator(_name)]
Whole = Annotated[int, BeforeValidator(_whole)]
Settings = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
Numbers = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)]


def validated(kind: type[_T], content: Any, where: str = "") -> _T:
    """A section from plain values.

    Args:
        kind: of the section.
        content: as YAML has it.
        where: the keys that lead to it, with dots between; "" at the top.

    Raises:
        UserError: a key is unknown, or a value is not what it may be; the sentence has the whole path.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(_sentence(error.errors()[0], where)) from error
    except RecursionError as error:
        raise UserError(f"{where or 'The study'} contains itself; write its values out.") from error


def _sentence(error: ErrorDetails, where: str) -> str:
    parts = list(error["loc"])
    of_key = parts[-1:] == ["[key]"]
    path = where
    for part in parts[:-2] if of_key else parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    kind, context, value = error["type"], error.get("ctx", {}), shortened(error["input"])
    if kind in ("key", "below"):
        return f"{path or 'The study'}{' ' if kind == 'key' else '.'}{context['said']}"
    if kind == "missing":
        above, _, key = path.rpartition(".")
        return f"{above or 'The study'} lacks `{key}`; add it."
    if of_key:
        return f"{path or 'The study'} has the name {value}; {_expected(error, context)}."
    return f"{path or 'The study'} is {value}; {_expected(error, context)}."


def _expected(error: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind == "greater_than_equal":
        return f"give {context['ge']:g} or more"
    if kind == "greater_than":
        return f"give more than {context['gt']:g}"
    if kind == "literal_error":
        return f"set it to one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    if kind == "too_short":
        return "give at least one entry"
    if kind == "value":
        return str(context.get("said") or error["msg"])
    words = next((words for begin, words in _WORDS.items() if kind.startswith(begin)), None)
    hint = ", and write 1e-3 as 1.0e-3, or YAML reads it as text" if words == "a number" and _is_number(error) else ""
    return f"give {words}{hint}" if words else error["msg"]


def _is_number(error: ErrorDetails) -> bool:
    return isinstance(error["input"], str) and bool(
        re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", error["input"].strip().lower())
    )


def shortened(value: Any) -> str:
    """The value as a sentence quotes it."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def said_of_key(key: str, known: Iterable[str]) -> str:
    """What is said of a key that a section does not have, with the known one that comes nearest."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    all_known = f"the keys are {', '.join(known)}" if len(known) <= _MOST_NAMED else "see the config of the study"
    hint = f"did you mean {near[0]!r}?" if near else f"{all_known}."
    return f"has a key {shortened(key)}, which is unknown; {hint}"


def unknown_key(where: str, key: str, known: Iterable[str]) -> UserError:
    """The error for a key that `where` does not have."""
    return UserError(f"{where} {said_of_key(key, known)}")
