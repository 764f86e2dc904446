"""What an examination of a data set has found: problems grouped by kind, with counts and first examples."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from os import PathLike, fspath
from typing import NamedTuple

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

EXAMPLES = 3
SKIP = 'DATASETS.ON_BAD "skip"'
_logger = logging.getLogger(__name__)


class Grade(Enum):
    """What is done about a problem."""

    # it says nothing about the content: corrected, and told in the log
    REPAIRED = "repaired"
    # an entry that DATASETS.ON_BAD "skip" leaves out, and that is refused otherwise
    BAD = "bad"
    # nothing starts before the user has corrected it
    REFUSED = "refused"


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        grade: what is done about it.
        what: what is the matter, as a clause that follows the name of an entry: "the box is not four numbers".
        way_out: what the user can do, as an imperative without a full stop; of a REPAIRED one what has been done.
    """

    grade: Grade
    what: str
    way_out: str


class Problem(NamedTuple):
    """One example of a kind.

    Attributes:
        kind: of the problem.
        file: where it is.
        entry: the entry of the file, such as "annotation 7"; "" if it is the file itself.
        field: the key in the entry, such as "bbox"; "" if there is none.
        detail: what this one has in particular, such as the value that is there; it is appended to `kind.what`.
    """

    kind: Kind
    file: str
    entry: str = ""
    field: str = ""
    detail: str = ""

    @property
    def place(self) -> str:
        """File, entry and field in words."""
        return ", ".join(part for part in (self.file, self.entry, self.field) if part)

    @property
    def sentence(self) -> str:
        """What there is to say if it is the only one of its kind."""
        return f"{_with_count(self.kind, Group(1, [self]))}; {self.kind.way_out}."


@dataclass
class Group:
    """All problems of a kind: how many, and the first `EXAMPLES` of them."""

    count: int = 0
    examples: list[Problem] = field(default_factory=list)


class Findings:
    """The problems of one or several data sets.

    Args:
        on_bad: DATASETS.ON_BAD: "stop" refuses entries of the grade BAD, "skip" leaves them out.
        option: what the user can set to have them left out; "" if there is no such thing.

    Raises:
        UserError: `on_bad` is neither.
    """

    def __init__(self, on_bad: str = "stop", option: str = SKIP) -> None:
        self.skips = check_choice("DATASETS.ON_BAD", on_bad) == "skip"
        self.option = option
        self.groups: dict[Kind, Group] = {}

    def add(self, kind: Kind, file: str | PathLike, entry: str = "", field: str = "", detail: str = "") -> None:
        """Note one problem; the arguments are those of `Problem`."""
        group = self.groups.setdefault(kind, Group())
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(Problem(kind, fspath(file), entry, field, detail))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Note several, such as another process has found."""
        for problem in problems:
            self.add(*problem)

    def rename(self, old: Kind, new: Kind) -> None:
        """Call all that has been noted as `old` so far `new`."""
        self.groups = {new if kind is old else kind: group for kind, group in self.groups.items()}

    def is_refused(self, kind: Kind) -> bool:
        """Whether a problem of this kind keeps anything from starting."""
        return kind.grade is Grade.REFUSED or kind.grade is Grade.BAD and not self.skips

    @property
    def refused(self) -> list[str]:
        """A sentence for each kind that nothing can start with; the first one found comes first."""
        return [self._sentence(kind, group) for kind, group in self.groups.items() if self.is_refused(kind)]

    @property
    def remarks(self) -> list[str]:
        """A line for each kind that was repaired, and for each whose entries were left out."""
        return [self._remark(kind, group) for kind, group in self.groups.items() if not self.is_refused(kind)]

    def log(self) -> None:
        """Log what was repaired and left out, a line for each kind."""
        for remark in self.remarks:
            _logger.warning(remark)

    def refuse(self) -> None:
        """Raise a UserError if anything is refused: a sentence for each kind, all of them together."""
        if sentences := self.refused:
            raise UserError("\n".join(sentences))

    def conclude(self) -> None:
        """`log`, and then `refuse`."""
        self.log()
        self.refuse()

    def table(self) -> list[tuple[str, int, str, str]]:
        """A row for each kind, the worst first: what is done about it, how often, what, and the first examples."""
        rows = []
        for kind, group in self.groups.items():
            done = "refused" if self.is_refused(kind) else "left out" if kind.grade is Grade.BAD else "repaired"
            rows.append((done, group.count, kind.what, "\n".join(problem.place for problem in group.examples)))
        return sorted(rows, key=lambda row: ("refused", "left out", "repaired").index(row[0]))

    def _remark(self, kind: Kind, group: Group) -> str:
        done = f"left out, because of {self.option}" if kind.grade is Grade.BAD else kind.way_out
        return f"{_with_count(kind, group)}; {done}."

    def _sentence(self, kind: Kind, group: Group) -> str:
        out = f", or leave such entries out with {self.option}" if kind.grade is Grade.BAD and self.option else ""
        return f"{_with_count(kind, group)}; {kind.way_out}{out}."


def _with_count(kind: Kind, group: Group) -> str:
    first, others = group.examples[0], group.examples[1:]
    where = ", ".join(part for part in (first.file, first.entry) if part)
    text = f"{where}: {kind.what}{first.detail}"
    if group.count == 1:
        return text
    names = [other.entry if other.entry and other.file == first.file else other.place for other in others]
    return (
        f"{text} (and {group.count - 1} more: {', '.join(names)}{', ...' if group.count > len(group.examples) else ''})"
    )
