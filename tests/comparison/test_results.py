"""Numbers that the held-out images do not define."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
from detectron2.data import MetadataCatalog

from gan_plugin.comparison.page import write_page
from gan_plugin.comparison.plan import Plan, Split
from gan_plugin.comparison.report import write_comparison_report
from gan_plugin.comparison.results import collect, up_to_date


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
    table = page.split("Every seed")[1]
    assert "better" not in table and "too few seeds" in table


def test_an_adversary_is_held_against_its_controls(plan, tmp_path):
    """Better than the baseline by 2 in each of five seeds, and no better than its frozen twin."""
    arms = {"baseline": 20.0, "lsgan": 22.0, "lsgan-frozen": 22.0, "longer": 21.0, "paper-frozen": 40.0}
    wide = replace(plan, arms={arm: {} for arm in arms}, seeds=[0, 1, 2, 3, 4])
    for seed in wide.seeds:
        for arm, score in {"a": 10.0, **arms}.items():
            folder = tmp_path / f"seed{seed}" / arm
            folder.mkdir(parents=True)
            scores = {"segm/AP": score + 0.1 * (seed * len(arm) % 5), "boundary/AP": score + 0.1 * seed * len(arm)}
            (folder / "metrics.json").write_text(json.dumps({"iteration": 4, **scores}) + "\n")
    results = collect(wide, tmp_path, {})
    found = results["controls"]["segm/AP"]
    assert list(found) == ["lsgan"]
    assert list(found["lsgan"]["to"]) == ["baseline", "lsgan-frozen", "longer"]
    assert (found["lsgan"]["closest"], found["lsgan"]["verdict"]) == (
        "lsgan-frozen",
        "not shown to be above lsgan-frozen",
    )
    assert found["lsgan"]["to"]["baseline"]["mean"] == pytest.approx(2.0, abs=0.2)
    page, figure = write_page(results, tmp_path / "page.md", "Held")
    text = page.read_text()
    assert "Not shown of lsgan: above every control in none of segm/AP, boundary/AP." in text
    assert "| lsgan | segm/AP | lsgan-frozen | " in text and f"]({figure.name})" in text
    assert "lsgan-frozen" in write_comparison_report(results, tmp_path).read_text().split("Against the controls")[1]
    del results["controls"]
    assert up_to_date(results)["controls"]["segm/AP"]["lsgan"]["closest"] == "lsgan-frozen"
