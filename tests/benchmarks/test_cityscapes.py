"""The benchmark of the Cityscapes evaluators: what it reports."""

import pytest
from detectron2.data import MetadataCatalog

from benchmarks.cityscapes import NAME, WAYS, measure_cityscapes


def test_a_small_measurement():
    report = measure_cityscapes(2, 16, 320, 160)
    assert list(report["seconds"]) == list(report["speedup"]) == list(WAYS)
    for way in WAYS:
        assert report["speedup"][way] == pytest.approx(report["seconds"]["official"] / report["seconds"][way])
    assert report["difference"] < 1e-9
    assert 0 < report["AP"] < 100
    assert NAME not in MetadataCatalog.list()
