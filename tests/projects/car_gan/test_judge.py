"""The human grid: nothing on the page tells what is what, and answers are scored by the exact binomial interval."""

import base64
import io
import json
import re

import numpy as np
import pytest
from car_gan.crops.dataset import crops_of
from car_gan.runs.judge import judge_answers
from car_gan.runs.trained import load_trained
from PIL import Image
from scipy.stats import beta


def test_the_key_and_only_the_key_says_which_are_crops(cli, run, tmp_path):
    assert cli("judge", run, "--output", tmp_path, "--count", 8) == 0
    page, key = (tmp_path / "judge.html").read_text(), json.loads((tmp_path / "judge_key.json").read_text())
    assert "http" not in page and "src=" not in page.replace('src="data:', "")
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]
    crops = crops_of(load_trained(run, opts=["MODEL.DEVICE", "cpu"]).cfg)
    known = {crops.pixels(index)[:3].permute(1, 2, 0).numpy().tobytes() for index in range(len(crops))}
    assert [picture.tobytes() in known for picture in shown] == [kind == "real" for kind in key["truth"]]
    assert sorted(key["truth"]) == ["generated"] * 4 + ["real"] * 4 != key["truth"]
    # apart from its picture and its number each car is the same text
    cars = re.findall(r"<fieldset>.*?</fieldset>", page, re.S)
    assert len({re.sub(r'src="[^"]*"|\d+', "", car) for car in cars}) == 1


def answer(folder, truth, marks, page="p"):
    (folder / "key.json").write_text(json.dumps({"page": "p", "truth": truth}))
    (folder / "answers.json").write_text(json.dumps({"page": page, "answers": marks}))
    return folder / "answers.json", folder / "key.json"


def test_answers_by_hand(tmp_path, cli, capsys):
    """Twenty cars, nineteen marked: two crops taken for generated, four generated ones for crops."""
    truth = ["real", "generated"] * 10
    marks = {str(i): kind for i, kind in enumerate(truth) if i != 19}
    marks |= {str(i): "generated" for i in (0, 2)} | {str(i): "real" for i in (1, 3, 5, 7)}
    files = answer(tmp_path, truth, marks)
    found = judge_answers(*files)
    assert (found.marked, found.unmarked, found.right, found.fooled) == (19, 1, 13, 4 / 9)
    # Clopper and Pearson: quantiles of beta distributions
    assert found.low == pytest.approx(beta.ppf(0.025, 13, 7)) and found.high == pytest.approx(beta.ppf(0.975, 14, 6))
    assert cli("judge", "--answers", files[0], "--key", files[1]) == 0
    assert "which guessing would give too" in capsys.readouterr().out
    assert json.loads((tmp_path / "judgement.json").read_text())["accuracy"] == 13 / 19
    # nothing is known of generated cars where none is marked, and a number out of the page is no answer
    crops_only = judge_answers(*answer(tmp_path, truth, {"0": "real", "2": "real"}))
    assert crops_only.fooled is None and "no generated car was marked" in crops_only.sentence()
    sure = judge_answers(*answer(tmp_path, truth, {str(i): kind for i, kind in enumerate(truth)}))
    assert sure.p_guessing == pytest.approx(2 * 0.5**20) and "not what guessing" in sure.sentence()


@pytest.mark.parametrize(
    "marks, page, sentence",
    [
        ({}, "p", "marks no car"),
        ({"0": "real"}, "q", "of another page"),
        ({"9": "real"}, "p", "not as the page saves"),
        ({"-1": "real"}, "p", "not as the page saves"),
        (["real"], "p", "not as the page saves"),
    ],
)
def test_what_is_wrong_is_a_sentence(cli, tmp_path, capsys, marks, page, sentence):
    answers, key = answer(tmp_path, ["real", "generated"], marks, page)
    assert cli("judge", "--answers", answers, "--key", key) == 2
    assert sentence in capsys.readouterr().err


def test_a_page_needs_a_run_and_crops_enough(cli, run, tmp_path, capsys):
    assert cli("judge", "--answers", tmp_path / "a.json") == 2
    assert cli("judge", run, "--output", tmp_path, "--count", 22) == 2
    assert "even number from 2 to 20" in capsys.readouterr().err
    # KEY VALUE pairs at the end, as of every verb
    taken = tmp_path / "taken"
    taken.touch()
    assert cli("judge", run, "--output", taken, "--count", 2, "MODEL.DEVICE", "cpu") == 2
    assert "taken/judge.html cannot be written" in capsys.readouterr().err
