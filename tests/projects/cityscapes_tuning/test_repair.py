"""Studies that are changed and mended between runs, what their storage survives, and what is said of their trials."""

import dataclasses
import json
import math
import shutil

import optuna
import pytest
from cityscapes_tuning.search.advance import Findings, advance
from cityscapes_tuning.search.context import CONFIG, DATA
from cityscapes_tuning.search.fine import fine_plan, space_of
from cityscapes_tuning.search.phases import COARSE, coarse_plan
from cityscapes_tuning.search.status import News, decisions, trial_table
from cityscapes_tuning.search.storage import JOURNAL, open_storage
from cityscapes_tuning.search.study import Arm, Objective
from cityscapes_tuning.search.table import Table, Wanted
from cityscapes_tuning.search.workspace import STUDY, open_study, retry_failed, set_up
from optuna.trial import TrialState

from gan_plugin.errors import UserError

PHASES = {
    "coarse": {"epochs": 1, "lr": [0.001], "factors": {"flip": {"no": {}, "yes": {"INPUT.RANDOM_FLIP": "horizontal"}}}},
    "full": {"epochs": 1, "variants": {"V1": {}, "V4": {"from": "V1"}}},
}


def finish(table, phase, key, value, done=2):
    """As a worker does it."""
    table.begin(table.rows(phase)[key])
    row = table.rows(phase)[key]
    table.note(row, values={str(done): value}, done=done, trained=done)
    table.close(table.rows(phase)[key], TrialState.COMPLETE)


@pytest.mark.parametrize("url", ["", "sqlite:///study.db"])
def test_a_storage_takes_any_setting_in_turn(tmp_path, url):
    """Levels, rates and spaces that nobody knew of when the first trial was made."""
    table = Table(open_storage(url, tmp_path), "study")
    for number, (level, rate) in enumerate([("a", 0.1), ("b", 0.001), ("c", 7.0)]):
        wanted = Wanted(
            COARSE, f"{level}", {"factor": level, "lr": rate}, {"x": rate}, 2, {"lr": (rate, 2 * rate, True)}
        )
        table.want([wanted])
        finish(table, COARSE, level, float(number))
    again = Table(open_storage(url, tmp_path), "study")
    rows = again.rows(COARSE)
    assert [(row.params, row.value, row.status) for row in rows.values()] == [
        ({"factor": "a", "lr": 0.1}, 0.0, "complete"),
        ({"factor": "b", "lr": 0.001}, 1.0, "complete"),
        ({"factor": "c", "lr": 7.0}, 2.0, "complete"),
    ]
    assert [trial.params for trial in again.optuna_study(COARSE).trials] == [{"lr": 0.1}, {"lr": 0.001}, {"lr": 7.0}]
    assert not url or (tmp_path / "study.db").is_file()


def test_only_one_worker_begins_a_trial(tmp_path):
    url = "sqlite:///study.db"
    first, second = (Table(open_storage(url, tmp_path), "study") for _ in range(2))
    first.want([Wanted(COARSE, "a", {}, {}, 2)])
    rows = [table.rows(COARSE)["a"] for table in (first, second)]
    assert [first.begin(rows[0]), second.begin(rows[1])] == [True, False]
    first.pause(rows[0])
    assert second.rows(COARSE)["a"].trial.state == TrialState.WAITING and second.begin(rows[1])


def test_a_line_cut_short_while_others_work_on_is_no_end(tmp_path):
    """A worker is killed, or the disk is full, in the midst of a line, and the others append theirs."""
    tables = [Table(open_storage("", tmp_path), "study") for _ in range(2)]
    for number in range(6):
        tables[number % 2].want([Wanted(COARSE, f"{number}", {"number": number}, {}, 2)])
        with open(tmp_path / JOURNAL, "ab") as file:
            file.write(b'{"op_code":5,"worker_id":"x","trial_id":0,"user_a'[: 3 + 8 * number])
    for table in (*tables, Table(open_storage("", tmp_path), "study")):
        assert [row.params["number"] for row in table.rows(COARSE).values()] == list(range(6))
    # and nothing is left of it but, at most, at the end
    lines = (tmp_path / JOURNAL).read_bytes().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines[:-1])


def test_a_picture_cut_short_is_named_and_its_trials_are_tried_again(study_file, toy, work, monkeypatch, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(toy, root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    phases = {"coarse": {**PHASES["coarse"], "factors": {}}}
    file = study_file(phases)
    _, undisturbed, _ = work(file, tmp_path / "undisturbed")
    context, table = set_up(file, tmp_path / "out")
    pictures = sorted(root.glob("cityscapes/leftImg8bit/train/tinytown/*.png"))
    whole = {picture: picture.read_bytes() for picture in pictures}
    for picture, content in whole.items():
        picture.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"Every trial of the phase coarse has failed.*tinytown.*--retry-failed"):
        work(file, tmp_path / "out")
    (row,) = table.rows("coarse").values()
    assert row.status == "failed" and any(picture.name in row.attr("reason") for picture in pictures)
    for picture, content in whole.items():
        picture.write_bytes(content)
    assert retry_failed(context, table) == ["coarse/lr=0.001"]
    work(file, tmp_path / "out")
    assert trial_table(table) == trial_table(undisturbed)
    # a phase that is added runs alone
    before = [trial.number for trial in table.optuna_study("coarse").trials]
    _, table, findings = work(study_file({**phases, "full": {"epochs": 1, "variants": {"V1": {}}}}), tmp_path / "out")
    assert findings.finished and list(table.all_rows()) == ["coarse/lr=0.001", "full/V1"]
    assert [trial.number for trial in table.optuna_study("coarse").trials] == before


@pytest.fixture
def finished(study_file, toy_root, tmp_path):
    """A study whose trials are all done, as far as the table knows: (folder, change the phases or keys of its file)."""
    file = study_file(PHASES)
    _, table = set_up(file, tmp_path / "out")
    keys = ["flip=no,lr=0.001", "flip=yes,lr=0.001"]
    table.want([Wanted("coarse", key, {"flip": key[5:-9], "lr": 0.001}, {}, 2) for key in keys])
    table.want([Wanted("full", key, {"variant": key}, {}, 2) for key in ("V1", "V4")])
    for phase, key in [*(("coarse", key) for key in keys), ("full", "V1"), ("full", "V4")]:
        finish(table, phase, key, 1.0)

    def change(phases=None, **more):
        return set_up(study_file({**PHASES, **(phases or {})}, **more), tmp_path / "out")

    return tmp_path / "out", change


COARSE_PHASE, FULL_PHASE = PHASES["coarse"], PHASES["full"]


@pytest.mark.parametrize(
    ("phases", "more"),
    [
        ({}, {}),
        ({"fine": {"arms": {"sgd": {"space": {"lr": "auto"}}}}, "confirm": {}}, {}),
        ({"coarse": {**COARSE_PHASE, "lr": [0.1, 0.001, 0.2]}}, {}),
        ({"coarse": {**COARSE_PHASE, "factors": {"flip": {**COARSE_PHASE["factors"]["flip"], "new": {"lr": 1}}}}}, {}),
        ({"full": {**FULL_PHASE, "variants": {**FULL_PHASE["variants"], "V9": {"TUNING.MINI_MASK": 28}}}}, {}),
        ({"full": {**FULL_PHASE, "variants": {"V1": {}}}}, {}),
        ({}, {"budget": {"hours": 3}, "gpus_per_trial": 2}),
        ({}, {"objective": {"direction": "minimize"}, "seed": 0}),
    ],
)
def test_what_leaves_done_trials_right_may_change(finished, phases, more):
    folder, change = finished
    _, table = change(phases, **more)
    assert {row.status for row in table.all_rows().values()} == {"complete"}
    assert open_study(folder)[0].study.phases.keys() == {**PHASES, **phases}.keys()


@pytest.mark.parametrize(
    ("phases", "more", "said"),
    [
        ({"coarse": {**COARSE_PHASE, "epochs": 2}}, {}, r"phases.coarse.epochs 1.0 \(now 2.0\)"),
        (
            {"coarse": {**COARSE_PHASE, "factors": {"flip": {"no": {}, "yes": {"TUNING.CROP.PROB": 0.5}}}}},
            {},
            "phases.coarse.factors.flip.yes",
        ),
        ({"full": {**FULL_PHASE, "patience": 1}}, {}, r"phases.full.patience 3 \(now 1\)"),
        ({"full": {"epochs": 1, "variants": {"V1": {"lr": 0.2}}}}, {}, "phases.full.variants.V1"),
        ({}, {"settings": {"TUNING.MINI_MASK": 28}}, "settings.TUNING.MINI_MASK"),
        ({}, {"seed": 1}, r"seed 0 \(now 1\)"),
        ({}, {"objective": {"metric": "segm/AP"}}, "objective.metric 'val_loss/total'"),
        ({}, {"data": {"parts": {"train": {"split": "train"}, "val": {"split": "val"}}}}, "data.parts.train.cities"),
        ({}, {"storage": "sqlite:///a.db"}, "storage '' "),
    ],
)
def test_what_would_make_done_trials_wrong_is_refused_by_name(finished, phases, more, said):
    folder, change = finished
    before = (folder / STUDY).read_text()
    with pytest.raises(UserError, match=f"another study .*{said}.* would make 4 trials wrong that are done"):
        change(phases, **more)
    assert (folder / STUDY).read_text() == before


def test_a_moved_folder_and_deleted_files_are_no_end(finished, tmp_path):
    folder, _ = finished
    parts = {file.name: file.read_bytes() for file in (folder / DATA).iterdir()}
    config = (folder / CONFIG).read_text()
    moved = tmp_path / "elsewhere/moved"
    moved.parent.mkdir()
    folder.rename(moved)
    # the study's own config is gone, as from a checkout that has been moved
    text = (moved / STUDY).read_text()
    (moved / STUDY).write_text(text.replace("mask_rcnn_cityscapes_quick.yaml", "gone.yaml"))
    assert len(open_study(moved)[1].all_rows()) == 4
    (moved / STUDY).write_text(text)
    for name in ("train.json", "notes.json", "val.json"):
        (moved / DATA / name).unlink()
    (moved / DATA / "test.json").write_bytes(parts["test.json"][:100])
    (moved / CONFIG).unlink()
    context, _ = open_study(moved)
    assert {file.name: file.read_bytes() for file in (moved / DATA).iterdir()} == parts
    assert (moved / CONFIG).read_text() == config and context.images["train"] == 4


def test_other_images_under_a_study_are_refused(finished, toy, monkeypatch, tmp_path):
    folder, _ = finished
    shutil.copytree(toy, tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    for file in (tmp_path / "data").rglob("train/tinytown/tinytown_000002*"):
        file.unlink()
    (folder / DATA / "train.json").unlink()
    with pytest.raises(UserError, match="the part train are other ones than when the study"):
        open_study(folder)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("val_loss/loss_masc", "did you mean 'val_loss/loss_mask'"),
        ("segm/APx", "did you mean 'segm/AP"),
        ("per_image/AP", None),
        ("val_loss/loss_mask", None),
    ],
)
def test_an_objective_is_checked_before_the_first_trial(study_file, toy_root, tmp_path, metric, said):
    file = study_file({"coarse": COARSE_PHASE}, objective={"metric": metric})
    if said is None:
        assert set_up(file, tmp_path / "out")[0].study.objective.metric == metric
        return
    with pytest.raises(UserError, match=f"objective.metric is '{metric}'.*{said}"):
        set_up(file, tmp_path / "out")
    # and the mistake is mended in the same folder
    set_up(study_file({"coarse": COARSE_PHASE}), tmp_path / "out")


def test_another_space_gets_trials_of_its_own(slides):
    fine = slides.study.phases["fine"]
    table = Table(optuna.storages.InMemoryStorage(), "study")

    def plan(space):
        return fine_plan(slides, fine, "sgd", table.rows("fine-sgd"), {}, space)

    narrow = {**fine.arms["sgd"].space, "lr": [1e-5, 1e-4]}
    table.want(plan(narrow).wanted)
    first = list(table.rows("fine-sgd"))
    finish(table, "fine-sgd", first[0], 1.0, done=table.rows("fine-sgd")[first[0]].iterations)
    wide = {**narrow, "lr": [1e-6, 1e-2]}
    widened = plan(wide)
    assert len(widened.wanted) == 17 and not {entry.key for entry in widened.wanted} & set(first)
    assert min(entry.params["lr"] for entry in widened.wanted) < 1e-5
    # what nobody has begun in the narrow one is given up, what is done stays
    assert widened.close.keys() == {f"fine-sgd/{key}" for key in first[1:]}
    table.want(widened.wanted)
    assert [entry.key for entry in plan(wide).wanted] == [entry.key for entry in widened.wanted]


def test_a_diverged_rate_is_no_end_of_an_interval(slides):
    table = Table(optuna.storages.InMemoryStorage(), "study")
    for rate in (0.001, 0.01, 0.1):
        table.want([Wanted("coarse", f"lr={rate}", {"lr": rate}, {}, 2, {"lr": (rate, rate, True)})])
        table.begin(table.rows("coarse")[f"lr={rate}"])
        row = table.rows("coarse")[f"lr={rate}"]
        table.note(row, values={"2": {0.001: 2.0, 0.01: 1.0, 0.1: 8e26}[rate]}, done=2, status="diverged")
        state = TrialState.FAIL if rate == 0.1 else TrialState.COMPLETE
        table.close(table.rows("coarse")[f"lr={rate}"], state)
    arm = Arm(space={"lr": "auto"})
    assert space_of(slides, arm, table.rows("coarse"))["lr"] == [0.001, 0.01]


def test_every_trial_is_told_of_once_whoever_ran_it(slides):
    storage, said = optuna.storages.InMemoryStorage(), []
    own, others = Table(storage, "study"), Table(storage, "study")
    others.want([Wanted("coarse", key, {}, {}, 2) for key in "abc"])
    news = News(slides, own, said.append)
    finish(others, "coarse", "a", 8.123456e26)
    others.note(others.rows("coarse")["b"], status="failed", reason="No such picture.", events=["Out of memory."])
    others.close(others.rows("coarse")["b"], TrialState.FAIL)
    for _ in range(2):
        news.tell()
    assert said == [
        "[2/3] coarse/a: complete after 2 iterations, val_loss/total 8.123e+26",
        "coarse/b: Out of memory.",
        "[2/3] coarse/b: failed after 0 iterations. No such picture.",
    ]


def test_a_score_is_maximised_and_shown_as_it_is(slides):
    study = slides.study.model_copy(update={"objective": Objective(metric="segm/AP")})
    context = dataclasses.replace(slides, study=study)
    phase, table = study.phases["coarse"], Table(optuna.storages.InMemoryStorage(), "study", "maximize")
    value = {"imagenet": 20.0, "coco": 45.2}
    for _ in value:
        plan, choice = coarse_plan(context, phase, table.rows(COARSE))
        table.want(plan.wanted)
        for key, row in table.rows(COARSE).items():
            if row.is_open:
                finish(table, COARSE, key, value[row.params["weights"]] - row.params["lr"], done=row.iterations)
    assert choice.levels["weights"] == "coco" and choice.lr == min(phase.lr)
    said = decisions(context, Findings(choice=choice))[0]
    assert "weights: coco wins (imagenet 20 (lr 1e-06), coco 45.2 (lr 1e-06))" in said


def train_all(context, table):
    """As workers would until all phases are over; the loss falls towards a learning rate of 5e-5."""
    for _ in range(100):
        findings = advance(context, table)
        if findings.finished:
            return findings
        for row in table.all_rows().values():
            if not row.is_ready and table.begin(row):
                rate = row.settings["SOLVER.BASE_LR"]
                value = 1 + abs(math.log10(rate / 5e-5)) + 0.01 * row.settings.get("SEED", 0) + 1 / row.iterations
                history = [{"iteration": 1, "total": 9.0}, {"iteration": row.iterations, "total": value}]
                values = {**row.attr("values", {}), str(row.iterations): value}
                table.note(row, values=values, history=history, trained=row.iterations, done=row.iterations)
                table.pause(row)
                weights = context.trial_folder(row.name) / "model_final.pth"
                weights.parent.mkdir(parents=True, exist_ok=True)
                weights.touch()
    raise AssertionError(f"it does not end; the phase is {findings.phase}")


def test_all_phases_of_the_slides_follow_from_the_table_alone(slides, tmp_path):
    context = dataclasses.replace(slides, folder=tmp_path)
    table = Table(open_storage("", tmp_path), "study")
    findings = train_all(context, table)
    counts = {phase: len(table.rows(phase)) for phase in table.phases()}
    assert counts == {"babysit": 2, "coarse": 16, "fine-sgd": 17, "fine-adam": 17, "confirm": 6, "full": 9}
    assert findings.can_be_trained[0] and findings.winner.phase == "fine-sgd"
    fine = [row for phase in ("fine-sgd", "fine-adam") for row in table.rows(phase).values()]
    assert {row.status for row in fine} == {"complete", "pruned"}
    best = min((row for row in fine if row.status == "complete"), key=lambda row: row.value)
    assert findings.winner.name == best.name
    rates = {row.settings["SOLVER.BASE_LR"] for row in table.rows("full").values()}
    assert rates == {best.params["lr"]}
    # kept are the weights of the best of each phase, and of what the variants start from
    kept = {file.parent.name for file in tmp_path.glob("trials/fine-sgd/*/*.pth")}
    assert kept == {best.key}
    # weights that are gone are trained again once another trial needs them
    (context.trial_folder("full/V1") / "model_final.pth").unlink()
    table.again(table.rows("full")["V4"])
    train_all(context, table)
    attempts = [trial.user_attrs["key"] for trial in table.optuna_study("full").trials]
    assert [attempts.count(key) for key in ("V1", "V2", "V4")] == [2, 1, 2]
    assert {row.status for row in table.rows("full").values()} == {"complete"}


def test_what_is_decided_otherwise_is_made_anew(slides):
    table = Table(optuna.storages.InMemoryStorage(), "study")
    table.want([Wanted("full", "V1", {}, {"SOLVER.BASE_LR": 0.1, "TUNING.MEMORY_GB": 0}, 2)])
    finish(table, "full", "V1", 1.0)
    table.want([Wanted("full", "V1", {}, {"SOLVER.BASE_LR": 0.1, "TUNING.MEMORY_GB": 4}, 2)])
    assert table.rows("full")["V1"].status == "complete"
    table.want([Wanted("full", "V1", {}, {"SOLVER.BASE_LR": 0.2, "TUNING.MEMORY_GB": 4}, 2)])
    row = table.rows("full")["V1"]
    assert row.status == "waiting" and row.attr("fresh") and "SOLVER.BASE_LR" in row.attr("events")[0]
    assert len(table.optuna_study("full").trials) == 2
