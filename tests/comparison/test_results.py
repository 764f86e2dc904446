"""Numbers that the held-out images do not define."""

import json
from copy import deepcopy

import pytest
from detectron2.data import MetadataCatalog

from gan_plugin.comparison.page import write_page
from gan_plugin.comparison.plan import Plan
from gan_plugin.comparison.report import write_comparison_report
from gan_plugin.comparison.results import collect, up_to_date
from gan_plugin.comparison.split import Split


@pytest.fixture
def plan():
    """One seed, and a held-out set of two classes."""
    names = ["held_out_a", "held_out_b", "held_out_eval"]
    MetadataCatalog.get(names[2]).set(thing_classes=["cup", "traffic-lid"])
    yield Plan("x.yaml", "", Split(names, [1] * 3, [1] * 3), 4, 4, {}, {}, {"baseline": {}, "bce": {}}, [0])
    MetadataCatalog.pop(names[2])


def test_what_is_not_defined_is_said_and_no_zero(plan, tmp_path):
    scores = {
        "a": {"segm/AP": 10.0, "segm/AP-cup": 10.0},
        "baseline": {"segm/AP": 20.0, "segm/AP-cup": 20.0, "segm/APs": 4.0},
        "bce": {"segm/AP": 30.0, "segm/AP-cup": 30.0, "segm/APs": float("nan")},
    }
    for arm, metrics in scores.items():
        folder = tmp_path / "seed0" / arm
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"iteration": 4, **metrics}) + "\n")
    results = collect(plan, tmp_path, {})
    assert results["runs"]["bce"]["0"]["metrics"] == {
        "segm/AP": 30.0,
        "segm/AP-cup": 30.0,
        "segm/AP-traffic-lid": None,
        "segm/APl": None,
        "segm/APm": None,
        "segm/APs": None,
    }
    row = results["statistics"]["segm/APs"]["bce"]
    assert (row["n"], row["mean"], row["difference"]["mean"]) == (0, None, None)
    assert results["statistics"]["segm/APs"]["baseline"]["mean"] == 4.0
    page = write_comparison_report(results, tmp_path).read_text()
    table = page[page.index("segm/AP-traffic-lid") :]
    assert table[: table.index("</table>")].count("<td>n/a</td>") >= 9


def test_results_of_an_earlier_version_get_the_statistics_of_this_one(plan, tmp_path):
    for arm, score in {"a": 10.0, "baseline": 20.0, "bce": 30.0}.items():
        folder = tmp_path / "seed0" / arm
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"iteration": 4, "segm/AP": score}) + "\n")
    now = collect(plan, tmp_path, {})
    assert up_to_date(now) is now
    before = deepcopy(now)
    del before["plan"]["main"]
    for row in before["statistics"]["segm/AP"].values():
        row["difference"] = row["difference"] and {"mean": 10.0, "interval": [9.0, 11.0], "verdict": "better"}
    assert up_to_date(before) == now
    page = write_page(up_to_date(before), tmp_path / "page.md", "Before")[0].read_text()
    assert "better" not in page and "too few seeds" in page
