"""Everything that the report and its figures show, read once from the study's folder."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gan_plugin.comparison.statistics import spread, t_interval

from ..data.ceiling import Ceiling, ceilings
from ..data.parts import PARTS
from ..data.register import read_part
from ..data.statistics import PartStatistics, part_statistics
from ..search.advance import Findings, advance
from ..search.context import DATA, Context
from ..search.full import CONFIRM, FULL, seed_scores
from ..search.table import Row, Table
from ..search.workspace import notes_of
from .scores import Judged, judge


@dataclass
class Gathered:
    """A study with its trials.

    Attributes:
        context: of the study.
        table: of its trials.
    """

    context: Context
    table: Table

    @cached_property
    def findings(self) -> Findings:
        """What has been decided."""
        return advance(self.context, self.table, apply=False)

    @cached_property
    def phases(self) -> list[str]:
        """The Optuna studies that have a trial, in the order of the phases."""
        return [phase for phase in self.table.phases() if self.rows(phase)]

    def rows(self, phase: str) -> dict[str, Row]:
        """Key -> trial; {} for a phase that has not begun."""
        return self._rows.get(phase, {})

    @cached_property
    def _rows(self) -> dict[str, dict[str, Row]]:
        return {phase: self.table.rows(phase) for phase in self.table.phases()}

    @cached_property
    def contents(self) -> dict[str, dict[str, Any]]:
        """Part -> metadata and records."""
        return {part: read_part(self.context.folder / DATA / f"{part}.json") for part in PARTS}

    @cached_property
    def statistics(self) -> dict[str, PartStatistics]:
        """Part -> counts."""
        return {
            part: part_statistics(content["records"], content["metadata"]["thing_classes"])
            for part, content in self.contents.items()
        }

    @cached_property
    def ceilings(self) -> dict[str, Ceiling]:
        """What mini-masks allow on the test part."""
        return ceilings(self.contents["test"]["records"], self.context.classes)

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """Variant -> its predictions on the test part."""
        results = {key: judge(self.folder(row), self.contents["test"]) for key, row in self.rows(FULL).items()}
        return {key: result for key, result in results.items() if result is not None}

    @property
    def notes(self) -> list[str]:
        """Sentences about the data."""
        return notes_of(self.context.folder)

    def folder(self, row: Row) -> Path:
        """Of a trial."""
        return self.context.trial_folder(row.name)

    @property
    def confirmed(self) -> list[dict[str, Any]]:
        """For each setting that was trained again: its scores by seed, their mean, deviation and interval."""
        entries = []
        for name, by_seed in seed_scores(self.rows(CONFIRM)).items():
            values = list(by_seed.values())
            entries.append({"name": name, "values": by_seed, "spread": spread(values), "interval": t_interval(values)})
        score = self.context.study.objective.score
        return sorted(entries, key=lambda e: score(statistics.fmean(e["values"].values()) if e["values"] else None))

    @cached_property
    def ranking(self) -> list[Row]:
        """Complete trials of the fine search over all arms, the best first."""
        rows = [row for phase in self.phases if phase.startswith("fine-") for row in self.rows(phase).values()]
        score = self.context.study.objective.score
        complete = [row for row in rows if row.status == "complete" and row.value is not None]
        return sorted(complete, key=lambda row: (score(row.value), row.name))

    @property
    def best_variant(self) -> str | None:
        """The variant with the best AP at IoU 0.5 on the test part."""
        return max(self.judged, key=lambda name: self.judged[name].ap[0], default=None)


def outcome_scores(row: Row) -> Mapping[str, float]:
    """What Detectron2's and gan_plugin's evaluators gave at the end, flat and in percent."""
    return row.attr("scores", {})
