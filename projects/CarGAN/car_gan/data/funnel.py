"""The funnel: how many cars there were, how many are left, and where the others went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .filters import REASONS


@dataclass(frozen=True)
class Funnel:
    """Counts of a build; `instances` is `kept` plus all that was dropped.

    Attributes:
        images: scenes walked over.
        empty: scenes without any car, by split or folder.
        instances: annotated cars and groups of cars.
        kept: crops.
        dropped: reason -> cars, in the order in which the reasons are asked; each car counts for its first reason.
    """

    images: int
    empty: dict[str, int]
    instances: int
    kept: int
    dropped: dict[str, int]

    @staticmethod
    def of(scenes: Sequence[str], kept: Sequence[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]]) -> "Funnel":
        """Count the lines of the manifest and those of the dropped cars, of the scenes named."""
        reasons = Counter(line["reason"] for line in dropped)
        with_cars = {line["source_image"] for line in kept} | {line["scene"] for line in dropped}
        empty = Counter(name.split("/")[0] if "/" in name else "" for name in scenes if name not in with_cars)
        ordered = {reason: reasons[reason] for reason in REASONS if reasons[reason]}
        return Funnel(len(scenes), dict(sorted(empty.items())), len(kept) + len(dropped), len(kept), ordered)

    def to_dict(self) -> dict[str, Any]:
        """As funnel.json holds it."""
        return {
            "images": self.images,
            "images_without_a_car": self.empty,
            "instances": self.instances,
            "kept": self.kept,
            "dropped": self.dropped,
        }

    def rows(self) -> list[tuple[str, int, int]]:
        """What was dropped or kept, how many, and how many were left after it; from the instances to the crops."""
        left, rows = self.instances, [("annotated", self.instances, self.instances)]
        for reason, count in self.dropped.items():
            left -= count
            rows.append((REASONS[reason], -count, left))
        return [*rows, ("kept", self.kept, left)]

    def table(self) -> str:
        """For the terminal: a line for each row."""
        lines = [f"{self.images} images, {sum(self.empty.values())} of them without a car"]
        lines += [f"{count:>8}  {left:>8}  {what}" for what, count, left in self.rows()]
        return "\n".join(lines)

    def sentence(self) -> str:
        """In one line, for an error."""
        parts = [f"{count} dropped because {REASONS[reason]}" for reason, count in self.dropped.items()]
        return f"Of {self.instances} in {self.images} images: {'; '.join(parts) or 'none was annotated'}."
