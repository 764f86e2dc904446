"""The whole way on the command line: toy steel, preparation, training, scores, synthetic data, report."""

import importlib
import json
import re
import shlex
from pathlib import Path

import inpaint
import numpy as np
import pytest
from coigan.config import load_config
from coigan.data.images import write_png
from coigan.segmentation.coco import CocoMasks
from coigan.segmentation.networks import build_segmenter
from coigan.segmentation.training import SegmentOptions, write_segmenter
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from pycocotools import mask as coco_mask

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

CONFIG = Path(inpaint.__file__).parent / "configs/toy.yaml"
TINY = [
    *("MODEL.GENERATOR.WIDTH", "4", "MODEL.GENERATOR.BLOCKS", "1", "MODEL.DISCRIMINATOR.WIDTH", "8"),
    *("MODEL.REF_DISCRIMINATOR.WIDTH", "8", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.NUM_WORKERS", "0", "DEVICE", "cpu"),
]


def call(*words):
    assert not inpaint.main([str(word) for word in words])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with toy steel, its prepared form, and a run of four iterations."""
    folder = tmp_path_factory.mktemp("coigan")
    call("prepare", "toy", folder / "data", "--tile", 64, "--toy-count", 16, "--toy-size", "64x200")
    train = ["train", "--config-file", CONFIG, "--data", folder / "data", "OUTPUT_DIR", folder / "run", *TINY]
    call(*train, "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2)
    return folder


def test_scores_and_report(work, capsys):
    call("evaluate", work / "run/model_final.pth", "--count", 12, "--crops", 12)
    report = json.loads((work / "run/report.json").read_text())
    shown = capsys.readouterr().out
    assert report["painted_vs_test"]["FID"] > report["train_vs_test"]["FID"] >= 0
    # every table has the base left alone and real train tiles
    assert report["base_vs_test"]["FID"] > 0 and report["copied_vs_test"]["fake_count"] == 12
    crops = report["crops"]["scores"]["all classes"]
    assert set(crops["rows"]) == {"painted", "copied", "unpainted", "real"} and crops["crops"] >= 6
    invisible, labels = report["crops"]["invisible_labels"]["painted"]
    assert f"invisible labels: {invisible} of {labels} painted" in shown and labels >= crops["crops"]
    for title in ("painted", "copy-paste", "unpainted base", "real train against test"):
        assert f"| {title} " in shown
    # the toy config blends the base image in, one pixel from the masks
    assert report["background"]["L1_outside"] < report["background"]["L1_inside"]
    assert report["painted_vs_test"]["fake_count"] == 12 and report["extractor"] == "lite0-imagenet-v1"
    # what "auto" means is the run's from its begin
    run = load_config(str(work / "run/config.yaml"))
    assert (run.TEST.FEATURES, run.LOSS.FEATURES.NETWORK) == ("lite0", "lite0")
    capsys.readouterr()
    call("evaluate", work / "run", "--all", "--count", 12, "--crops", 12, "--min-checkpoint", 1)
    shown = capsys.readouterr().out
    assert "model_0000001" in shown and "model_0000003" in shown and ", crop FID" in shown.split("best: ")[1]
    assert "unpainted base" in shown and "real train against test" in shown
    stamp = (work / "run/evaluations.json").stat().st_mtime_ns
    call("evaluate", work / "run", "--all", "--count", 12, "--crops", 12, "--min-checkpoint", 1)
    assert (work / "run/evaluations.json").stat().st_mtime_ns == stamp  # nothing is computed twice
    capsys.readouterr()
    # scores by another network are neither in the table nor the best
    call("evaluate", work / "run", "--all", "--count", 12, "--crops", 12, "--min-checkpoint", 3, "--features", "random")
    shown = capsys.readouterr().out
    assert "model_0000003" in shown and "model_0000001" not in shown and "not Inception" in shown
    entries = json.loads((work / "run/evaluations.json").read_text()).values()
    entries = [entry for entry in entries if "checkpoint" in entry]
    assert [entry["extractor"][:5] for entry in entries] == ["lite0", "lite0", "built"]
    with pytest.raises(UserError, match="holds no checkpoint from iteration 99"):
        call("evaluate", work / "run", "--all", "--min-checkpoint", 99)
    call("augment", work / "run/model_final.pth", "--out", work / "shown", "--count", 2, "--clean", 0)
    write_segmenter(work / "s.pth", build_segmenter("unet_small"), SegmentOptions("unet_small"))
    call("segment", "--audit", work / "shown", "--segmenter", work / "s.pth")
    call("report", work / "run", "--out", work / "page.html", "--augmented", work / "shown")
    page = (work / "page.html").read_text()
    assert "Do the labels hold?" in page and "of 2 images have an object below 0.3" in page
    assert (
        "unpainted base" in page
        and "Invisible labels: " in page
        and "Outside of the masks" in page
        and page.count("data:image/png") == 4
        and "aug_000001.png" in page
    )
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_resume_continues_with_its_own_config(work):
    with pytest.raises(UserError, match="already holds a checkpoint"):
        call("train", "--config-file", CONFIG, "--data", work / "data", "OUTPUT_DIR", work / "run", *TINY)
    before = read_config(work / "run")
    with pytest.raises(UserError, match="REF_DISCRIMINATOR.WIDTH .* or start another run in another OUTPUT_DIR"):
        call("train", "--resume", "OUTPUT_DIR", work / "run", "SOLVER.MAX_ITER", 6, "MODEL.REF_DISCRIMINATOR.WIDTH", 99)
    call("train", "--resume", "OUTPUT_DIR", work / "run", "SOLVER.MAX_ITER", 6)
    after = read_config(work / "run")
    assert "model_0000005.pth" in {path.name for path in (work / "run").iterdir()}
    assert before.replace("MAX_ITER: 4", "MAX_ITER: 6") == after


def read_config(folder):
    return (folder / "config.yaml").read_text()


@pytest.mark.parametrize("method", ["gan", "copy_paste", "poisson"])
def test_every_placed_mask_is_labelled_and_detectron2_reads_it(work, method):
    out = work / f"augmented_{method}"
    arguments = ["augment", work / "run/model_final.pth", "--count", 6, "--method", method, "--seed", 3]
    arguments += ["--margin", 0, "--clean", 0]
    call(*arguments, "--out", out)
    name = f"coigan_test_{method}"
    register_coco_instances(name, {}, str(out / "annotations.json"), str(out / "images"))
    try:
        records = DatasetCatalog.get(name)
    finally:
        DatasetCatalog.remove(name)
    facts = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    assert len(records) == len(facts) == 6
    for record, fact in zip(records, facts, strict=True):
        assert len(record["annotations"]) == len(fact["objects"]) > 0
        base, painted = read_rgb(work / "data/base" / fact["base"]), read_rgb(record["file_name"])
        union = np.zeros(base.shape[:2], bool)
        for entry in record["annotations"]:
            mask = coco_mask.decode(entry["segmentation"]).astype(bool)
            rows, columns = np.nonzero(mask)
            x, y, width, height = entry["bbox"]
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max() - x + 1, rows.max() - y + 1) == (width, height)
            union |= mask
        # what differs from the base image is labelled, and something does
        changed = (base != painted).any(2)
        assert changed.any() and not (changed & ~union).any()
        assert fact["synthetic"] is True and fact["method"] == method
        assert ("weights_sha256" in fact) == (method == "gan")
    images, mask = CocoMasks(out / "annotations.json")[0]
    assert images.shape == (3, 64, 64) and mask.any()
    again = work / f"again_{method}"
    call(*arguments, "--out", again)
    for path in sorted((out / "images").iterdir()):
        assert path.read_bytes() == (again / "images" / path.name).read_bytes()
    with pytest.raises(UserError, match="holds files"):
        call(*arguments, "--out", out)
    call(*arguments, "--out", work / f"whole_{method}", "--with-real")
    whole = json.loads((work / f"whole_{method}/annotations.json").read_text())
    assert sum(image["synthetic"] for image in whole["images"]) == 6
    assert len(whole["images"]) == 6 + len(list((work / "data/train").glob("*.png")))


def test_export_and_infer(work, capsys):
    call("export", work / "run/model_final.pth", work / "generator.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (70, 150, 3), np.uint8)
    write_png(work / "large.png", image)
    mask = np.zeros((70, 150), np.uint8)
    mask[30:40, 90:120] = 255
    write_png(work / "mask.png", mask)
    weights = work / "generator.safetensors"
    call("infer", weights, work / "large.png", work / "painted.png", "--mask", f"2={work / 'mask.png'}", "--margin", 0)
    painted = read_rgb(work / "painted.png")
    assert ((painted != image).any(2) <= (mask > 0)).all() and (painted != image).any()
    facts = json.loads((work / "painted.png.json").read_text())
    assert facts["weights_sha256"] in capsys.readouterr().out and facts["synthetic"] is True
    call("infer", weights, work / "large.png", work / "spot.png", "--ellipse", "1=10,20,20,10", "--seed", 4)
    assert (read_rgb(work / "spot.png") != image).any()
    for wrong, said in (
        (["--mask", "9=x.png"], "the classes are 1, 2, 3, 4"),
        (["--ellipse", "1=1,2,3"], "no X,Y,W,H"),
        ([], "Nothing is asked for"),
        (["--ellipse", "1=1,2,3,4", "--strength", "3"], "--strength is 3.0; set it to a number from 0 to 2"),
    ):
        with pytest.raises(UserError, match=said):
            call("infer", weights, work / "large.png", work / "x.png", *wrong)


def test_masks_from_a_generator_of_masks(work):
    """shapes-train leaves a bank of masks, which training asks the generator for; resume knows which game it was."""
    small = ["SHAPES.STYLE_SIZE", 8, "SHAPES.MAPPING_LAYERS", 1, "SHAPES.WIDTH", 8, "SHAPES.IMS_PER_BATCH", 2]
    run = work / "shapes"
    words = ["--data", work / "data", "OUTPUT_DIR", run, "INPUT.SIZE", 64, "SHAPES.MAX_ITER", 2, "SHAPES.CLASS", 2]
    with pytest.raises(UserError, match="--bank needs SHAPES.SOURCE masks"):
        call("shapes-train", "--bank", 5, *words, *small, *TINY, "SHAPES.SOURCE", "base")
    assert not run.exists()  # said before the training, not after it
    call("shapes-train", "--bank", 5, *words, *small, *TINY)
    assert (run / "model_final_ema.pth").is_file() and len((run / "bank/dataset.jsonl").read_text().splitlines()) == 5
    call("train", "--resume", "OUTPUT_DIR", run, "SHAPES.MAX_ITER", 3)
    assert (run / "model_final.pth").is_file()
    banks = str(tuple([str(run / "bank")] * 4))
    options = ["DATA.SHAPE_SOURCE", "generated", "DATA.SHAPE_BANKS", banks, "SOLVER.MAX_ITER", 2]
    data = ["--config-file", CONFIG, "--data", work / "data"]
    call("train", *data, "OUTPUT_DIR", work / "banked", *TINY, *options)
    with pytest.raises(UserError, match="names 0 folders, but there are 4 classes"):
        call("train", *data, "OUTPUT_DIR", work / "other", "DATA.SHAPE_SOURCE", "generated")


def test_a_segmenter_is_not_tested_on_what_it_has_learnt(work):
    """Two COCO JSONs with a picture in common, which one of them reaches by a link."""
    test = work / "data/test/annotations.json"
    content = json.loads(test.read_text())
    (work / "linked").mkdir()
    (work / "linked/images").symlink_to(test.parent, target_is_directory=True)
    train = work / "linked/annotations.json"
    train.write_text(json.dumps({**content, "images": content["images"][:1], "annotations": []}))
    shared = next(test.parent.rglob(content["images"][0]["file_name"])).resolve()
    with pytest.raises(UserError, match=f"The test set holds {shared}, which is trained on; use other images"):
        call("segment", "--train", train, "--test", test, "--output", work / "apart", "--steps", 2, "--batch", 2)
    assert not (work / "apart/results.json").exists()


def test_segmenters_are_compared(work, capsys):
    out = work / "copies"
    call("augment", work / "run/model_final.pth", "--out", out, "--count", 4, "--clean", 0, "--method", "copy_paste")
    call(
        "augment",
        work / "run/model_final.pth",
        "--out",
        work / "tests",
        "--count",
        3,
        "--clean",
        0,
        "--method",
        "copy_paste",
    )
    json_file, test = out / "annotations.json", work / "tests/annotations.json"
    words = ["segment", "--train", json_file, "--test", test, "--extra", f"more={json_file}"]
    words += ["--output", work / "segment", "--model", "unet_small", "--steps", 2, "--batch", 2, "--seeds", 0, 1, 2]
    call(*words)
    assert "difference to real alone" in capsys.readouterr().out
    assert {path.name for path in (work / "segment").glob("*.pth")} == {f"segmenter_seed{n}.pth" for n in range(3)}
    with pytest.raises(UserError, match="NAME=JSON"):
        call(*words[:6], "real=x.json")
    json_file.write_text(json_file.read_text() + " ")
    with pytest.raises(UserError, match="is of other data or options"):
        call(*words)


@pytest.mark.parametrize(
    "words, said",
    [
        (["train"], "no data to train on"),
        (["train", "--data", "/nowhere"], "holds no prepared data set"),
        (["export", "nothing.pth", "x.pth"], "does not exist"),
        (["train", "--resume", "OUTPUT_DIR", "/nowhere"], "holds no config.yaml"),
        (["augment", "nothing.pth", "--out", "x", "--count", "1"], "does not exist"),
    ],
)
def test_mistakes_get_a_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        inpaint.main(words)


def test_tiles_of_another_size_are_refused(work):
    with pytest.raises(UserError, match="have 64 pixels, but INPUT.SIZE is 128"):
        call("train", "--data", work / "data", "INPUT.SIZE", 128, "OUTPUT_DIR", work / "never")


# a command of inpaint.py, in the pages or in a verb's own help
_PRINTED = re.compile(r"\s*(?:\.venv/bin/python (?:\$I|projects/COIGAN/inpaint\.py)|inpaint\.py) (\S.*)")


def printed_commands():
    """All of them, without what stands for optional parts."""
    folder = Path(inpaint.__file__).parent
    texts = [(folder / name).read_text() for name in ("README.md", "DATA.md")]
    texts += [importlib.import_module(module).__doc__ for module in inpaint.VERBS.values()]
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            if match := _PRINTED.match(line):
                yield re.sub(r"\[[^\]]*\]", "", match[1])


def test_printed_commands_are_understood():
    verbs = set()
    for command in printed_commands():
        words = shlex.split(command, comments=True)
        verbs.add(words[0])
        inpaint.parse(words)
    assert verbs == set(inpaint.VERBS)
