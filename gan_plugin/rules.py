"""What a config key may hold. A rule stands beside the key's default, tests a value and says itself in a sentence."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from detectron2.config import CfgNode as CN
from fvcore.common.registry import Registry

from gan_plugin.config_files import look_up
from gan_plugin.errors import UserError

# names that a sentence lists
_MOST = 20


@dataclass(frozen=True)
class Rule:
    """Which values are allowed.

    Attributes:
        allows: whether it allows a value, of whatever type.
        expected: the end of "set it to ...".
        known: all allowed values, where they are few.
        any_case: whether capitals do not matter.
    """

    allows: Callable[[Any], bool]
    expected: str
    known: tuple[Any, ...] = ()
    any_case: bool = False

    def check(self, key: str, value: Any) -> Any:
        """Return an allowed `value`, in small letters where capitals do not matter.

        Raises:
            UserError: it is not allowed; the sentence names `key` and says what is expected.
        """
        if self.known:
            small = value.lower() if self.any_case and isinstance(value, str) else value
            return small if small in self.known else check_name(key, value, self.known)
        if not self.allows(value):
            raise UserError(f"{key} is {value!r}; set it to {self.expected}.")
        return value


# names of keys -> a default with its rule, or a further group of keys
Keys = Mapping[str, Any]


def rules_of(keys: Keys, path: str = "") -> dict[str, Rule]:
    """The rule of each key by its full name."""
    found: dict[str, Rule] = {}
    for name, entry in keys.items():
        found |= rules_of(entry, f"{path}{name}.") if isinstance(entry, Mapping) else {f"{path}{name}": entry[1]}
    return found


def defaults_of(keys: Keys) -> dict[str, Any]:
    """The defaults, in nested dictionaries."""
    return {name: defaults_of(entry) if isinstance(entry, Mapping) else entry[0] for name, entry in keys.items()}


def fill(node: CN, keys: Keys, path: str = "") -> None:
    """Give `node` the defaults of those `keys` that it lacks.

    Raises:
        UserError: it has a value under a name that is a group of keys.
    """
    for name, entry in keys.items():
        is_group = isinstance(entry, Mapping)
        if name not in node:
            setattr(node, name, CN(defaults_of(entry)) if is_group else entry[0])
        elif is_group and not isinstance(node[name], CN):
            raise UserError(
                f"The config has {path}{name} = {node[name]!r}, but gan_plugin keeps a group of keys there; "
                "call yours otherwise."
            )
        elif is_group:
            fill(node[name], entry, f"{path}{name}.")


def check_keys(cfg: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raise a UserError for the first of the keys whose value breaks its rule."""
    for key, rule in rules.items():
        rule.check(key, look_up(cfg, key))


def check_name(key: str, name: str, known: Iterable[Any]) -> str:
    """Return `name`, the value of config key `key`, if it is one of `known`, such as the names in a registry.

    Raises:
        UserError: it is not; the sentence lists the known ones, and asks about the nearest.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    asked = f"did you mean {near[0]!r}? The" if near else "the"
    more = f" and {len(known) - _MOST} more" if len(known) > _MOST else ""
    listed = ", ".join(map(repr, known[:_MOST]))
    raise UserError(f"{key} is {name!r}, which is unknown; {asked} known ones are {listed}{more}.")


def registered(key: str, name: str, registry: Registry) -> Any:
    """What config key `key` names in `registry`; errors as in `check_name`."""
    return registry.get(check_name(key, name, sorted(entry for entry, _ in registry)))


def one_of(*known: Any, any_case: bool = False) -> Rule:
    """One of a few values."""
    return Rule(known.__contains__, f"one of {', '.join(map(str, known))}", known, any_case)


def number(fits: Callable[[Any], bool], expected: str, kind: type = Real) -> Rule:
    """A number of that kind that fits."""
    return Rule(lambda value: isinstance(value, kind) and fits(value), expected)


def whole(least: int) -> Rule:
    """A whole number of at least so much."""
    return number(lambda value: value >= least, f"a whole number, {least} or more", Integral)


def between(least: float, most: float, what: str = "a number") -> Rule:
    """A number in a closed interval."""
    return number(lambda value: least <= value <= most, f"{what} from {least} to {most}")


def series(entry: Rule, fits: Callable[[Any], bool], expected: str) -> Rule:
    """A tuple or list of which each entry obeys a rule, and that fits as a whole."""

    def allows(values: Any) -> bool:
        are_many = isinstance(values, Sequence) and not isinstance(values, str)
        return are_many and all(map(entry.allows, values)) and fits(values)

    return Rule(allows, expected)


FREE = Rule(lambda value: True, "anything")
SWITCH = Rule(lambda value: value in (True, False), "True or False")
AMOUNT = number(lambda value: 0 <= value < math.inf, "a finite number, 0 or more")
POSITIVE = number(lambda value: 0 < value < math.inf, "a finite number above 0")
# may be infinite
LIMIT = number(lambda value: value >= 0, "a number, 0 or more")
SHARE = between(0, 1)
PROBABILITY = between(0, 1, "a probability")
BELOW_1 = number(lambda value: 0 <= value < 1, "0 for none, or a number below 1")
BETAS = series(BELOW_1, lambda values: len(values) == 2, "two numbers in [0, 1)")
INTERVAL = series(
    number(math.isfinite, "a finite number"),
    lambda ends: len(ends) == 2 and ends[0] <= ends[1],
    "two finite numbers, the lower one first",
)
WIDTHS = series(whole(1), lambda widths: len(widths) > 0, "one or more positive whole numbers")
SIZES = series(whole(0), lambda sizes: len(sizes) == 3 and sum(sizes) > 0, "three numbers of images, not all of them 0")
LEVELS = series(
    whole(0), lambda levels: list(levels) == sorted(set(levels)) != [], "levels from 0 up in ascending order"
)
