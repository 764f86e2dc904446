"""The command line of training and of what a trained generator is asked for."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from car_gan.config import load_config
from car_gan.crops.dataset import crops_of, train_loader
from car_gan.networks.build import DISCRIMINATOR, GENERATOR
from car_gan.runs.pictures import walk
from car_gan.runs.scores import memorisation, nearest
from car_gan.runs.trained import load_trained
from car_gan.runs.training import build_loop
from car_runs import CONFIGS, options, preset
from PIL import Image
from support import assert_same

from gan_plugin import UserError
from gan_plugin.evaluation.image_features import Features

PLAYERS = (GENERATOR, DISCRIMINATOR)
SAMPLED = ["cars", "samples.json", "sheet.png"]


@pytest.mark.parametrize("name", ["dcgan", "resnet18_sa_logan", "logan_b", "best_64"])
def test_a_resumed_training_equals_an_unbroken_one_bit_for_bit(cli, crops, tmp_path, name):
    more = ["SOLVER.MAX_ITER", 4, "MODEL.GAN.EMA.DECAY", 0.9, "MODEL.GAN.REG.EVERY", 2, "SOLVER.SCHEDULE", "linear"]
    if name.startswith("resnet"):
        more += ["MODEL.GENERATOR.BLOCKS", "(1,1,1,1)", "MODEL.DISCRIMINATOR.BLOCKS", "(1,1,1,1)"]
        more += ["MODEL.GENERATOR.ATTENTION", "(16,)", "MODEL.DISCRIMINATOR.ATTENTION", "(16,)", "SOLVER.ACCUMULATE", 2]
    a, b = tmp_path / "a", tmp_path / "b"
    assert cli("train", *preset(name), *options(crops, a, *more)) == 0
    shutil.copytree(a, b)
    final, half = torch.load(a / "model_final.pth", weights_only=True), "model_0000001.pth"
    for path in b.glob("*.pth"):
        if path.name != half:
            path.unlink()
    (b / "last_checkpoint").write_text(half)
    torch.manual_seed(123)
    assert cli("resume", b) == 0
    assert_same(final, torch.load(b / "model_final.pth", weights_only=True))
    assert json.loads((b / "model_best_fid.json").read_text()) == json.loads((a / "model_best_fid.json").read_text())


def test_a_training_leaves_what_its_user_expects(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.json",
        "log.txt",
        "model_final.pth",
        "model_final_ema.pth",
        "provenance.json",
    }
    assert {"model_best_fid.pth", "model_best_is.pth", "last_checkpoint", "samples"} <= names
    lines = {}
    for line in (run / "metrics.json").read_text().splitlines():
        lines.update(json.loads(line))
    for key in (
        "loss_disc_image",
        "loss_adv_image",
        "gan/image/d_real",
        "gan/image/diversity",
        "ema/lite0/FID",
        "lr",
    ):
        assert isinstance(lines[key], float), key
    scores = json.loads((run / "ema" / "scores.json").read_text())
    assert scores["extractor"] == "lite0-imagenet-v1" and (scores["real_count"], scores["fake_count"]) == (10, 16)
    facts = json.loads((run / "provenance.json").read_text())
    assert facts["crops"]["count"] == 10 and len(facts["crops"]["sha256"]) == 64 and "terms" in facts["licence"]


def test_sample_evaluate_interpolate_export_and_compare(cli, run, crops, tmp_path, capsys):
    assert cli("sample", run, "--count", 5, "--output", tmp_path / "s", "--truncation", 0.7) == 0
    files = sorted((tmp_path / "s/cars").glob("*.png"))
    assert len(files) == 5 and Image.open(files[0]).size == (32, 32)
    assert "terms" in json.loads((tmp_path / "s/samples.json").read_text())["licence"]
    trained = load_trained(run, opts=["MODEL.DEVICE", "cpu"])
    expected = trained.images(trained.latents(5, 0, 0.7))[0]
    drawn = torch.from_numpy(np.asarray(Image.open(files[0])).copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(drawn, expected, atol=0.5 / 127.5 + 1e-4, rtol=0)

    assert cli("evaluate", run, "--output", tmp_path / "e", "TEST.SAMPLES", 12) == 0
    out = capsys.readouterr().out
    assert "10 real and 12 generated" in out and "lite0-imagenet-v1;" in out and "cars keyed and put on grey" in out
    plain, on_grey = (json.loads((tmp_path / f"e/{name}.json").read_text()) for name in ("scores", "scores_on_ground"))
    assert (plain["label"], on_grey["label"]) == ("lite0", "lite0_on_grey") and plain["FID"] != on_grey["FID"]
    assert cli("interpolate", run, "--output", tmp_path / "i.png", "--rows", 2, "--steps", 3) == 0
    assert Image.open(tmp_path / "i.png").size == (3 * 34 + 2, 2 * 34 + 2)
    assert cli("export", run, "--output", tmp_path / "x") == 0
    traced = torch.jit.load(tmp_path / "x/generator.ts")
    z = trained.latents(3, 5)
    torch.testing.assert_close(traced(z), trained.images(z), atol=1e-5, rtol=1e-5)
    assert "terms" in (tmp_path / "x/LICENCE_NOTE.txt").read_text()

    other = shutil.copytree(run, tmp_path / "other")
    assert cli("compare", run, other, "--output", tmp_path / "c") == 0
    # an export says of copies what an evaluation says, and scores nothing
    compared, exported = (json.loads((tmp_path / f / "memorisation.json").read_text()) for f in (f"c/{run.name}", "x"))
    assert exported == compared and len(compared["verdict"]) > 20
    assert json.loads((tmp_path / "x/export.json").read_text())["memorisation"] == compared["verdict"]
    assert (tmp_path / "x/neighbours.png").read_bytes() == (tmp_path / f"c/{run.name}/neighbours.png").read_bytes()
    assert not list((tmp_path / "x").glob("scores*")) and not (tmp_path / "x/on_ground.png").exists()
    page = (tmp_path / "c/report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "") and page.count("<figure>") > 10
    for words in (
        "sa",
        "other",
        "FID against epoch, by lite0",
        "Self-attention of the generator",
        "not the FID and IS of papers",
        "Scores without the key colour",
        "Self-attention: every position gathers",
        "each row is an epoch, from the top",
    ):
        assert words in page
    words = re.findall(r"<(?:figcaption|p|h2|caption)[^>]*>(.*?)</", page, re.DOTALL)
    assert len(words) > 30 and not [text for text in words if "green" in text.lower()]
    assert "Discriminator&#39;s loss by verdicts, NonSaturatingBCE, against epoch" in page
    # no arm uses these
    assert "Latent optimisation" not in page and "Mask R-CNN" not in page
    assert cli("compare", run, run, "--output", tmp_path / "c2") == 2
    # of two networks there is no table
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("FEATURES: lite0", "FEATURES: random"))
    capsys.readouterr()
    assert cli("compare", run, other, "--output", tmp_path / "c3") == 2 and not (tmp_path / "c3").exists()
    assert "by different networks (builtin, lite0); add --opts TEST.FEATURES" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["SOLVER.IMS_PER_BATCH", 50], "SOLVER.IMS_PER_BATCH is 50, but there are only 10 crops"),
        (["TEST.SAMPLES", 5], "Scores need 6 crops and TEST.SAMPLES 6"),
        (["INPUT.SIZE", 48], "set it to a power of two"),
        (["INPUT.CHANNELS", 4], "3 channels where 4 are asked for"),
        (["DATASETS.CROPS", "nowhere"], "nowhere does not exist"),
        (["MODEL.GAN.OBJECTIVE", "Nope"], "MODEL.GAN.OBJECTIVE is 'Nope'"),
        (["TEST.INCEPTION", "none.pth"], "none.pth cannot be read"),
        (["SOLVER.DISC.BASE_LR", 1e30, "SOLVER.MAX_ITER", 4], "Training stopped at iteration"),
        (["SOLVER.NOPE", 1], "command line's config options are wrong"),
    ],
)
def test_what_is_wrong_is_a_sentence(cli, crops, tmp_path, capsys, more, sentence):
    assert cli("train", *options(crops, tmp_path / "out", "SOLVER.MAX_ITER", 1, *more)) == 2
    assert sentence in capsys.readouterr().err


def test_one_crop_is_one_sentence(cli, crops, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    shutil.copy(crops / "car00.png", tmp_path / "one")
    own = options(tmp_path / "one", tmp_path / "out", "SOLVER.MAX_ITER", 1)
    for more in ([], ["SOLVER.IMS_PER_BATCH", 1], ["MODEL.LABEL.KIND", "colour"], ["DATASETS.HELD_OUT", 0]):
        assert cli("train", *own, *more) == 2
        said = capsys.readouterr().err
        assert "one has too few crops to train on: 1, where a training with scores needs 6" in said, said
    assert not (tmp_path / "out").exists()


def test_weights_to_start_from_hold_a_generator_of_cars(cli, run, crops, tmp_path, capsys):
    own = [*preset("sa_dcgan"), *options(crops, tmp_path / "out", "SOLVER.MAX_ITER", 1)]
    own += ["MODEL.GENERATOR.ATTENTION", "(16,)", "MODEL.WEIGHTS"]
    game = torch.load(run / "model_final.pth", weights_only=True)["model"]
    parts = {kind: {name: value for name, value in game.items() if name.startswith(kind)} for kind in PLAYERS}
    for content, sentence in (
        ({"model": parts[DISCRIMINATOR]}, "holds no generator of cars"),
        ({"model": {"backbone.weight": torch.zeros(3)}}, "holds no generator of cars"),
        ({"backbone.weight": torch.zeros(3)}, "holds no generator of cars"),
        (torch.zeros(4, 3, 8, 8), "it holds no weights"),
        ({name: value[:1] for name, value in parts[GENERATOR].items() if value.dim()}, "weights of another network"),
        ({"model": {name: value * torch.nan for name, value in parts[GENERATOR].items()}}, "are not finite"),
    ):
        torch.save(content, tmp_path / "x.pt")
        assert cli("train", *own, tmp_path / "x.pt") == 2
        assert sentence in capsys.readouterr().err
        assert cli("sample", run, "--weights", tmp_path / "x.pt", "--output", tmp_path / "s") == 2
        assert sentence in capsys.readouterr().err and not (tmp_path / "s").exists()
    # an average, which is a generator alone, does
    cfg = load_config(str(run / "config.yaml"), [])
    data = crops_of(cfg)
    loop = build_loop(cfg, data, train_loader(cfg, data), str(run / "model_final_ema.pth"))
    average = torch.load(run / "model_final_ema.pth", weights_only=True)["model"]
    assert_same(dict(loop.game.generator.state_dict()), dict(average))


def test_samples_are_those_of_the_last_call_and_nothing_of_yours_is_lost(cli, run, tmp_path, capsys):
    out, noted = tmp_path / "s", json.loads((run / "provenance.json").read_text())["crops"]["key"]
    assert cli("sample", run, "--count", 5, "--output", out) == 0
    assert cli("sample", run, "--count", 2, "--seed", 3, "--output", out) == 0
    facts = json.loads((out / "samples.json").read_text())
    assert sorted(path.name for path in (out / "cars").iterdir()) == ["car_3_000000.png", "car_3_000001.png"]
    assert (facts["cars"], facts["size"], facts["channels"], facts["seed"]) == (2, 32, 3, 3)
    assert facts["key"] == noted == [51, 255, 51] and sorted(path.name for path in out.iterdir()) == SAMPLED
    (out / "cars/mine.png").touch()
    assert cli("sample", run, "--count", 1, "--output", out) == 2
    assert "holds mine.png, which cars.py sample has not drawn" in capsys.readouterr().err
    assert len(list((out / "cars").iterdir())) == 3 and (out / "samples.json").is_file()


def test_a_second_training_in_a_folder_and_other_networks_are_refused(cli, run, crops, capsys):
    assert cli("train", *preset("sa_dcgan"), *options(crops, run)) == 2
    assert "already holds a checkpoint" in capsys.readouterr().err
    assert cli("resume", run, "MODEL.GENERATOR.WIDTH", 8) == 2
    assert "was begun with MODEL.GENERATOR.WIDTH 4 (now 8)" in capsys.readouterr().err
    with pytest.raises(UserError, match="weights of another network"):
        load_trained(run, opts=["MODEL.DEVICE", "cpu", "MODEL.GENERATOR.WIDTH", "8"])


def test_copies_are_found_and_new_cars_are_not():
    random = torch.Generator().manual_seed(0)
    crops, held, fresh = (torch.randn(200, 8, generator=random) for _ in range(3))

    def features(values):
        return Features(values, values, "toy", "toy")

    copied = memorisation(features(crops[:50] + 0.01), features(crops), features(held))
    assert copied.copies == 1.0 and "look at the neighbours" in copied.sentence()
    new = memorisation(features(fresh), features(crops), features(held))
    assert new.copies < 0.05 and new.median_distance == pytest.approx(new.held_out_distance, rel=0.1)
    few = memorisation(features(fresh), features(crops), features(held[:9]))
    assert "9 held out" in few.sentence() and "a rough guess" in few.sentence()
    assert "a rough guess" not in new.sentence()
    assert "no held-out" in memorisation(features(fresh), features(crops), None).sentence()
    distance, index = nearest(crops[3:4] + 0.5, crops)
    assert index.item() == 3 and distance.item() == pytest.approx(0.5 * 8**0.5, rel=1e-4)


def test_a_walk_keeps_to_the_sphere_and_meets_both_ends():
    a, b = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)).unbind()
    steps = walk(a, b, 5).view(3, 5, 64)
    torch.testing.assert_close(steps[:, 0], a)
    torch.testing.assert_close(steps[:, -1], b)
    # halfway along a great circle between unit vectors: the normalised sum
    unit = [v / v.norm(dim=1, keepdim=True) for v in (a, b)]
    middle = walk(*unit, 3).view(3, 3, 64)[:, 1]
    torch.testing.assert_close(middle, (sum(unit) / sum(unit).norm(dim=1, keepdim=True)))


def test_the_baseline_learns_eight_crops_by_heart(crops, tmp_path):
    """P1's layers, narrow and at 16 pixels: after 500 steps samples are copies, and every crop has some."""
    own = tmp_path / "eight"
    own.mkdir()
    for path in sorted(crops.glob("*.png"))[:8]:
        shutil.copy(path, own)
    sizes = "MODEL.DEVICE cpu INPUT.SIZE 16 MODEL.LATENT.SIZE 8 MODEL.GENERATOR.WIDTH 32 MODEL.DISCRIMINATOR.WIDTH 32"
    speed = "SOLVER.BASE_LR 0.004 SOLVER.DISC.BASE_LR 0.0005 SOLVER.WEIGHT_DECAY 0.0 SOLVER.DISC.WEIGHT_DECAY 0.0"
    rest = "SOLVER.IMS_PER_BATCH 8 SOLVER.MAX_ITER 500 SOLVER.SCHEDULE linear DATASETS.HELD_OUT 0.0 TEST.SAMPLES 16"
    places = ["OUTPUT_DIR", str(tmp_path), "DATASETS.CROPS", str(own), "VIS_EPOCHS", "0", "TEST.EVAL_EPOCHS", "0"]
    everything = [*sizes.split(), *speed.split(), *rest.split(), *places, "SOLVER.CHECKPOINT_EPOCHS", "1000"]
    cfg = load_config(str(CONFIGS / "dcgan.yaml"), everything)
    data = crops_of(cfg)
    loop = build_loop(cfg, data, train_loader(cfg, data))
    loop.train()
    real = torch.stack([data[index] for index in range(8)])
    game = loop.game.eval()
    with torch.no_grad():
        drawn = game.generator(game.latents.fixed(64, torch.device("cpu"), 0))

    def distance(a, b):
        return (a[:, None] - b).abs().mean((2, 3, 4))

    between = float(distance(real, real).sum() / (8 * 7))
    nearest_crop = distance(drawn, real).min(dim=1)
    assert float(nearest_crop.values.mean()) < 0.6 * between, (float(nearest_crop.values.mean()), between)
    # no crop is forgotten
    best = distance(drawn, real).min(dim=0).values
    assert float(best.max()) < 0.6 * between, best / between
    assert nearest_crop.indices.unique().numel() >= 7
