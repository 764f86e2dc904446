"""What a finished study leaves: the report, the figures, the export, and the estimate before it."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from cityscapes_tuning import commands
from cityscapes_tuning.reporting.gather import Gathered
from cityscapes_tuning.reporting.page import write_study_report
from cityscapes_tuning.reporting.picture import fit_axis, new_axes, plot
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from fvcore.nn import smooth_l1_loss
from study import main

from gan_plugin.comparison.statistics import t_interval
from gan_plugin.errors import UserError, run_command_line

PHASES = {
    "babysit": {"epochs": 2, "fall": 0.0, "lr_range_iterations": 2, "lr_range": [1e-5, 1e-3]},
    "coarse": {"epochs": 1, "lr": [0.01], "factors": {"optimizer": {"sgd": {}, "adam": {"SOLVER.OPTIMIZER": "adam"}}}},
    "full": {
        "epochs": 1,
        "patience": 1,
        "variants": {"V1": {}, "V5": {"from": "V1", "TUNING.FREEZE": ["fpn", "rpn"], "MODEL.RPN.LOSS_WEIGHT": 0.0}},
    },
}
SETTINGS = {
    "TEST.DETECTIONS_PER_IMAGE": 10,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TUNING.MINI_MASK": 56,
    "INPUT.RANDOM_FLIP": "horizontal",
}


@pytest.fixture
def finished(study_file, work, tmp_path):
    """A study with two variants that have been judged."""
    settings = {**SETTINGS, "SOLVER.CLIP_GRADIENTS.ENABLED": True}
    context, table, _ = work(study_file(PHASES, settings=settings), tmp_path / "out")
    return context, table


def test_a_finished_study(finished, tmp_path, capsys):
    context, table = finished
    study = Gathered(context, table)
    for name, judged in study.judged.items():
        # what the evaluator measured while it trained, by another way
        scores = study.rows("full")[name].attr("scores")
        assert 100 * judged.ap[0] == pytest.approx(scores["per_image/AP"], abs=1e-9)
        assert 100 * judged.rap == pytest.approx(scores["per_image/rAP"], abs=1e-9)
    assert set(study.judged) == {"V1", "V5"}
    page = write_study_report(context, table).read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    best = study.judged[study.best_variant]
    assert f"with AP {best.ap[0]:.3f} at IoU 0.5" in page and "needs 5 seeds: too few seeds" in page
    (gap,) = study.variant_differences
    # both variants have the same images with an object, so the mean difference is that of the means
    expected = study.judged["V5"].ap[0] - study.judged["V1"].ap[0]
    assert gap["name"] == "V5 minus V1" and gap["mean"] == pytest.approx(expected, abs=1e-12)
    assert gap["interval"][0] <= gap["mean"] <= gap["interval"][1] and "V5 minus V1" in page
    # boxes are the box head's, as the evaluator has written them
    file = context.trial_folder(f"full/{study.best_variant}") / "inference/coco_instances_results.json"
    entries = sorted(json.loads(file.read_text()), key=lambda entry: -entry["score"])
    for image, boxes in best.boxes.items():
        written = [e["bbox"] for e in entries if e["image_id"] == image]
        assert [[b[0], b[1], b[2] - b[0], b[3] - b[1]] for b in (box.place for box in boxes)] == [
            pytest.approx(box, abs=1e-3) for box in written
        ]
    # the slides' rows of these two variants
    assert all(f"<td>{value}</td>" in page for value in ("0.587", "0.623", "0.352", "0.367"))
    figures = {file.stem for file in (context.folder / "figures").iterdir()}
    wanted = {"babysit_loss", "lr_range", "coarse_optimizer", "full_V5", "ap_bars", "mini_mask", "rois", "mask_rcnn"}
    assert wanted <= figures
    assert main(["status", str(context.folder), "--json"]) == 0
    assert [row["trial"] for row in json.loads(capsys.readouterr().out)] == list(table.all_rows())

    assert main(["export", str(context.folder), "--out", str(tmp_path / "export"), "--trial", "full/V5"]) == 0
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "export/config.yaml"))
    assert cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 10
    weights = torch.load(tmp_path / "export/model.pth", weights_only=True)["model"]
    build_model(cfg).load_state_dict(weights, strict=True)
    predictions = json.loads((tmp_path / "export/predictions.json").read_text())
    assert predictions and {"image_id", "category_id", "segmentation", "score"} <= set(predictions[0])
    with pytest.raises(UserError, match="no weights any more"):
        main(["export", str(context.folder), "--out", str(tmp_path / "e2"), "--trial", "coarse/optimizer=adam,lr=0.01"])
    with pytest.raises(UserError, match="choose from data, babysit"):
        main(["figures", str(context.folder), "--only", "date"])


def test_settings_are_compared_by_the_same_seeds():
    """By hand: 0.5 and 0.7 minus 0.4 and 0.5, whatever the third seed of one of them gave."""
    first = {"name": "a", "values": {"1": 0.4, "2": 0.5, "3": 9.0}}
    study = SimpleNamespace(confirmed=[first, {"name": "b", "values": {"1": 0.5, "2": 0.7}}])
    (gap,) = Gathered.confirmed_differences.fget(study)
    assert gap["name"] == "b minus a" and gap["mean"] == pytest.approx(0.15)
    assert gap["interval"] == pytest.approx(t_interval([0.1, 0.2])) if gap["interval"] else not t_interval([0.1, 0.2])


@pytest.mark.parametrize("values, scale", [([0.5, 80], "log"), ([1, 5], "linear"), ([0, 99], "linear"), ([], "linear")])
def test_values_over_decades_have_a_logarithmic_axis(values, scale):
    _, axes = new_axes()
    fit_axis(axes, values)
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("length", [3, 30, 70])
def test_no_text_of_a_legend_is_cut_off(length):
    figure, axes = new_axes()
    for number in range(8):
        axes.plot([0, 1], [0, number], label=f"{number} " + "w" * length)
    plot("x", "", figure, legend=True)
    figure.draw_without_rendering()
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 + 1


def test_smooth_l1_is_matterports():
    """0.5 d^2 below 1 and |d| - 0.5 above, of deltas divided by 0.1: Detectron2's at beta 0.1, ten times."""
    text = (Path(commands.__file__).parents[1] / "configs/mask_rcnn_R101_tuning.yaml").read_text()
    model = yaml.safe_load(text)["MODEL"]
    delta = torch.linspace(-0.5, 0.5, 101)
    scaled, none = 10 * delta, torch.zeros(101)
    matterport = torch.where(scaled.abs() < 1, 0.5 * scaled**2, scaled.abs() - 0.5)
    heads = smooth_l1_loss(scaled, none, model["ROI_BOX_HEAD"]["SMOOTH_L1_BETA"])
    rpn = 10 * smooth_l1_loss(delta, none, model["RPN"]["SMOOTH_L1_BETA"])
    torch.testing.assert_close(heads, matterport)
    torch.testing.assert_close(rpn, matterport)


def test_the_dry_run_leaves_nothing(study_file, toy_root, forked, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("gan_plugin.comparison.conduct.TrainNet", forked)
    file = study_file(PHASES)
    assert main(["run", str(file), "--output", str(tmp_path / "out"), "--dry-run", "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"coarse +2 runs +4 iterations", said) and "Estimated at most" in said
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_sentence(tmp_path, capsys, monkeypatch):
    assert run_command_line(lambda: main(["status", str(tmp_path)])) == 2
    assert "holds no study" in capsys.readouterr().err
    assert run_command_line(lambda: main(["run", str(tmp_path / "no.yaml"), "--output", str(tmp_path / "o")])) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert set(commands.VERBS) == {"run", "resume", "work", "status", "report", "figures", "export", "demo"}
