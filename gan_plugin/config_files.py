"""Configs as data: the one reader of YAML, which never makes an object, and what differs between two configs."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gan_plugin.errors import UserError

BASE_KEY = "_BASE_"
_PYTHON = "tag:yaml.org,2002:python/"
# as long as a value in a sentence may be
_LONGEST = 80

Change = tuple[str, object, object]


class _DataReader(yaml.SafeLoader):
    """YAML's own types, and what PyYAML writes for the plain types of Python, such as `!!python/tuple`."""


class _InertReader(_DataReader):
    """Reads what a LazyConfig leaves: of an object its tag and what it would be made from."""


def _refuse(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(problem=node.tag, problem_mark=node.start_mark)


def _content(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_DataReader.add_constructor(None, _refuse)
for _name, _construct in {
    "tuple": lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
    "list": _DataReader.construct_yaml_seq,
    "dict": _DataReader.construct_yaml_map,
    "str": _DataReader.construct_yaml_str,
    "unicode": _DataReader.construct_yaml_str,
    "int": _DataReader.construct_yaml_int,
    "long": _DataReader.construct_yaml_int,
    "float": _DataReader.construct_yaml_float,
    "bool": _DataReader.construct_yaml_bool,
    "none": _DataReader.construct_yaml_null,
}.items():
    _DataReader.add_constructor(_PYTHON + _name, _construct)
_InertReader.add_multi_constructor(_PYTHON, lambda loader, tag, node: {"!": tag, "of": _content(loader, node)})


def read_yaml(content: str | bytes, source: str, *, objects: bool = False) -> Any:
    """What a YAML text says, as plain data; no code of it runs.

    Args:
        content: the text.
        source: what it is, for a sentence about it: "The config file a.yaml".
        objects: whether tags of Python objects are read, as {"!": tag, "of": content}, rather than refused.

    Raises:
        UserError: it is not YAML, or holds a tag that stands for an object.
    """
    try:
        return yaml.load(content, _InertReader if objects else _DataReader)
    except yaml.constructor.ConstructorError as error:
        tag, line = str(error.problem), error.problem_mark.line + 1 if error.problem_mark else 0
        if tag.startswith(_PYTHON):
            raise UserError(
                f"{source} has the tag !!{tag.removeprefix('tag:yaml.org,2002:')} in line {line}, which would run "
                "Python code; a config is data, so write the value itself."
            ) from error
        raise UserError(f"{source} is wrong in line {line}: {words(tag)} is not a plain value.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source} is wrong, no YAML: {words(error)}.") from error


def read_config(path: str, *, source: str = "The config file", chain: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a YAML file over those of the files that its `_BASE_` names, one or a list, as in Detectron2.

    Args:
        path: of the file, or the address of one ("https://...", "detectron2://...").
        source: what the file is, for sentences about it.
        chain: of the files that this one is a `_BASE_` of; leave it out.

    Raises:
        UserError: one of the files is missing, is no mapping of keys, holds an object, or is a base of itself.
    """
    whose = f", which {chain[-1]} names as {BASE_KEY}," if chain else ""
    here = path if "://" in path else os.path.realpath(path)
    if here in chain:
        raise UserError(f"{source} {path}{whose} leads back to itself; take one {BASE_KEY} out.")
    content = read_yaml(_bytes_of(path, source, whose), f"{source} {path}")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{source} {path}{whose} is wrong: it is {'empty' if content is None else 'no list of keys'}.")
    bases = content.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list | tuple) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{source} {path} has {BASE_KEY} {bases!r}; name a file, or a list of files.")
    merged: dict[str, Any] = {}
    for base in bases:
        base = os.path.expanduser(base)
        base = base if "://" in base else os.path.join(os.path.dirname(path), base)
        _merge(merged, read_config(base, source=source, chain=(*chain, here)), path)
    return _merge(merged, content, path)


def _bytes_of(path: str, source: str, whose: str) -> bytes:
    try:
        if "://" not in path:
            with open(path, "rb") as file:
                return file.read()
        # here, since it is heavy
        from detectron2.utils.file_io import PathManager

        with PathManager.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise UserError(f"{source} {path}{whose} does not exist; check the path.") from error
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        reason = words(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
        raise UserError(f"{source} {path}{whose} cannot be read ({reason}).") from error


def _merge(below: dict[str, Any], over: Mapping[str, Any], path: str) -> dict[str, Any]:
    for key, value in over.items():
        if isinstance(value, dict) and key in below:
            if not isinstance(below[key], dict):
                raise UserError(f"The config file {path} has keys below {key}, which is a value in its {BASE_KEY}.")
            _merge(below[key], value, path)
        else:
            below[key] = value
    return below


def look_up(node: Any, key: str) -> Any:
    """The value at `key`, dots between its parts, of nested dictionaries; None if there is none."""
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by their full keys, dots between the parts, as YAML or JSON would hold them."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _plain(value)
    return found


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[Change]:
    """(key, value before, value now) of all that differs between two flat configs, in the order of `now`.

    Args:
        before, now: see `flat`.
        defaults: values of keys that one of the two lacks; None stands for those that are not here either.
    """
    # of what has gone, "_target_" comes before its arguments
    keys = [*now, *sorted(key for key in before if key not in now)]
    filled = [{key: _plain(part.get(key, (defaults or {}).get(key))) for key in keys} for part in (before, now)]
    pairs = [(key, filled[0][key], filled[1][key]) for key in keys]
    # NaN is not equal to itself
    return [(key, was, is_) for key, was, is_ in pairs if was != is_ and repr(was) != repr(is_)]


def told(changes: Sequence[Change], most: int = 3) -> str:
    """The first few of `changes` in words: "SEED 1 (now 2), A.B 'x' (now 'y') and 3 more keys"."""
    words = [f"{key} {_short(was)} (now {_short(now)})" for key, was, now in changes[:most]]
    more = len(changes) - most
    return ", ".join(words) + (f" and {more} more key{'s' * (more > 1)}" if more > 0 else "")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return {key: _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def words(error: object, most: int = 300) -> str:
    """The text of an error in one line without its full stop, cut to `most` characters."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= most else f"{line[: most - 3]}..."
