"""Findings: grouped by kind, counted, told together; what is refused and what is left out depends on ON_BAD."""

import logging

import pytest

from gan_plugin.data.findings import Findings, Grade, Kind, Problem
from gan_plugin.errors import UserError

NO_AREA = Kind(Grade.REPAIRED, "there is no area", "it was taken from the mask")
NO_MASK = Kind(Grade.BAD, "there is no mask", "draw it")
NO_LIST = Kind(Grade.REFUSED, "there is no list of images", "export it again")


def some(on_bad="stop"):
    findings = Findings(on_bad)
    for number in range(1, 6):
        findings.add(NO_AREA, "a.json", f"annotation {number}", "area")
    findings.extend([Problem(NO_MASK, "a.json", "annotation 7"), Problem(NO_MASK, "b.json", "annotation 8", "mask")])
    return findings


def test_every_kind_is_a_sentence_and_they_are_told_together(caplog):
    findings = some()
    findings.add(NO_LIST, "b.json", detail=" but a number")
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as caught:
        findings.conclude()
    assert str(caught.value).splitlines() == [
        "a.json, annotation 7: there is no mask (and 1 more: b.json, annotation 8, mask); draw it, or leave such "
        'entries out with DATASETS.ON_BAD "skip".',
        "b.json: there is no list of images but a number; export it again.",
    ]
    (line,) = caplog.messages
    assert line == (
        "a.json, annotation 1: there is no area (and 4 more: annotation 2, annotation 3, ...); it was taken from the "
        "mask."
    )


def test_skip_turns_refusals_of_entries_into_lines(caplog):
    with caplog.at_level(logging.WARNING):
        some("skip").conclude()
    assert len(caplog.messages) == 2 and "left out" in caplog.messages[1]
    assert [row[:2] for row in some("skip").table()] == [("left out", 2), ("repaired", 5)]
    assert [row[:2] for row in some().table()] == [("refused", 2), ("repaired", 5)]
    with pytest.raises(UserError, match="DATASETS.ON_BAD is 'ignore'"):
        Findings("ignore")
