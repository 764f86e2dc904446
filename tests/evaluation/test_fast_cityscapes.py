"""The fast Cityscapes evaluator: the official numbers on random data, broken input, two processes."""

import multiprocessing

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils import comm
from PIL import Image
from random_cityscapes import CLASSES, HEIGHT, WIDTH, as_instances, random_images, scores_of, write_truth
from support import plugin_cfg

from gan_plugin.errors import UserError, explanation
from gan_plugin.evaluation.build import build_evaluator
from gan_plugin.evaluation.cityscapes import CityscapesInstanceMetrics, FastCityscapesInstanceEvaluator, compare

NAME = "fast_cityscapes"


@pytest.fixture
def cityscapes(tmp_path):
    """An empty gtFine/val, registered under NAME."""
    MetadataCatalog.get(NAME).set(thing_classes=CLASSES, gt_dir=str(tmp_path), evaluator_type="cityscapes_instance")
    (tmp_path / "ulm").mkdir()
    yield tmp_path
    MetadataCatalog.remove(NAME)


def assert_same_scores(images):
    """Both evaluators have the same entries with the same numbers; returns them."""
    official = scores_of(CityscapesInstanceMetrics(NAME), images)
    fast = scores_of(FastCityscapesInstanceEvaluator(NAME), images)
    assert list(fast) == ["cityscapes"] and list(fast["cityscapes"]) == list(official["cityscapes"])
    assert fast["cityscapes"] == pytest.approx(official["cityscapes"], rel=0, abs=1e-9)
    return fast["cityscapes"]


@pytest.mark.parametrize("seed", range(12))
def test_the_official_numbers_on_random_images(cityscapes, seed):
    scores = assert_same_scores(random_images(cityscapes, seed))
    assert 1 < scores["AP"] < 99 and "AP-car" in scores
    # never in the truth, and not evaluated
    assert "AP-train" not in scores and "AP-caravan" not in scores


def test_the_official_numbers_where_nothing_is_found_or_to_find(cityscapes):
    record, output = random_images(cityscapes, 0, count=1)[0]
    assert set(assert_same_scores([(record, {})]).values()) == {0}
    nothing = write_truth(cityscapes, 1, np.full((HEIGHT, WIDTH), 26, np.uint16))
    assert assert_same_scores([(nothing, output)]) == {}
    assert scores_of(FastCityscapesInstanceEvaluator(NAME), []) == {"cityscapes": {}}


@pytest.mark.parametrize(("columns", "hit"), [(10, 0), (11, 1), (12, 2), (14, 4), (15, 5), (16, 6), (18, 8), (19, 9)])
def test_the_official_numbers_at_an_iou_on_a_threshold(cityscapes, columns, hit):
    """The IoU is columns / 20. Only above a threshold is a hit."""
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    ids[:20, :20] = 26001
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:20, :columns] = True
    images = [(write_truth(cityscapes, 0, ids), {"instances": as_instances([mask], [1], [0.5])})]
    assert assert_same_scores(images)["AP-car"] == pytest.approx(10 * hit)


@pytest.mark.parametrize(
    ("side", "on_group", "on_void", "ignored"),
    [(9, 31, 0, 3), (9, 60, 0, 10), (10, 40, 0, 0), (10, 30, 40, 4), (10, 0, 50, 0)],
)
def test_ground_to_ignore_and_small_groups_twice(cityscapes, side, on_group, on_void, ignored):
    """A false prediction of 100 pixels; a group below 100 pixels counts twice, void and groups add up.

    Where it counts, it is ahead of the true one: recall 1, 0, 0 at precision 1/2, 0, 1, of width 1/2, 1/2, 0.
    """
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    ids[40:60, 40:60] = 26001
    group, void = np.zeros((2, HEIGHT, WIDTH), bool)
    group[:side, :side] = True
    void[30:40, :10] = True
    elsewhere = np.zeros((HEIGHT, WIDTH), bool)
    elsewhere[60:, 80:] = True
    ids[group], ids[void] = 26, 9
    mask = np.zeros(ids.size, bool)
    for part, pixels in ((group, on_group), (void, on_void), (elsewhere, 100 - on_group - on_void)):
        mask[np.flatnonzero(part)[:pixels]] = True
    images = [
        (
            write_truth(cityscapes, 0, ids),
            {"instances": as_instances([ids == 26001, mask.reshape(ids.shape)], [1, 1], [0.5, 0.9])},
        )
    ]
    assert assert_same_scores(images)["AP-car"] == pytest.approx(10 * ignored + 2.5 * (10 - ignored))
    share = compare(ids, [mask.reshape(ids.shape)], [26], [0.9]).ignored[0]
    assert share == (on_group * (2 if side == 9 else 1) + on_void) / 100


def test_a_class_whose_predictions_are_all_ignored_has_0(cityscapes):
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    ids[:20, :20], ids[40:, :] = 26001, 1
    images = [(write_truth(cityscapes, 0, ids), {"instances": as_instances([ids == 1], [1], [0.5])})]
    assert assert_same_scores(images)["AP-car"] == 0


@pytest.mark.parametrize(
    "convert",
    [
        lambda masks: [rle.encode(np.asfortranarray(mask.numpy(), np.uint8)) for mask in masks],
        lambda masks: masks.to(torch.uint8) * 255,
        lambda masks: masks.float() * 1.5,
        # the official way cuts off what is behind the point
        lambda masks: torch.where(masks, 1.0, 0.9),
    ],
    ids=["rle", "uint8", "float", "fractions"],
)
def test_rles_and_other_number_types_have_the_same_scores(cityscapes, convert):
    images = random_images(cityscapes, 1)
    expected = scores_of(FastCityscapesInstanceEvaluator(NAME), images)
    converted = []
    for record, output in images:
        if output:
            found = output["instances"]
            fields = {"scores": found.scores, "pred_classes": found.pred_classes}
            masks = convert(found.pred_masks)
            output = {"instances": Instances(found.image_size, pred_masks=masks, **fields)}
        converted.append((record, output))
    assert scores_of(FastCityscapesInstanceEvaluator(NAME), converted) == expected


def test_an_image_seen_twice_counts_once(cityscapes):
    images = random_images(cityscapes, 2)
    evaluator = FastCityscapesInstanceEvaluator(NAME)
    assert scores_of(evaluator, [(images[0][0], {}), *images]) == scores_of(evaluator, images)


def test_the_config_chooses(cityscapes, tmp_path):
    cfg = plugin_cfg()
    cfg.MODEL.MASK_ON, cfg.OUTPUT_DIR = True, str(tmp_path)
    MetadataCatalog.get(NAME).json_file = str(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text('{"images": [], "annotations": [], "categories": []}')
    chosen = [type(build_evaluator(cfg, NAME)._evaluators[0])]
    cfg.TEST.CITYSCAPES_EVALUATOR = "fast"
    chosen.append(type(build_evaluator(cfg, NAME)._evaluators[0]))
    assert chosen == [CityscapesInstanceMetrics, FastCityscapesInstanceEvaluator]
    cfg.TEST.CITYSCAPES_EVALUATOR = "quick"
    with pytest.raises(UserError, match="TEST.CITYSCAPES_EVALUATOR is 'quick'.*'official', 'fast'"):
        build_evaluator(cfg, NAME)


def saved(ids):
    return lambda path: Image.fromarray(ids).save(path)


SOUND = np.full((HEIGHT, WIDTH), 26001, np.uint16)
BROKEN_TRUTH = {
    "unknown id": (saved(np.full_like(SOUND, 34000)), "the id 34000, which Cityscapes does not define"),
    "one unknown pixel": (saved(np.where(np.eye(HEIGHT, WIDTH), 500, SOUND).astype(np.uint16)), "the id 500"),
    "colour": (saved(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "8 bits a value and colours"),
    "colour with alpha": (saved(np.zeros((HEIGHT, WIDTH, 4), np.uint8)), "8 bits a value and transparency"),
    "8 bits": (saved((SOUND % 256).astype(np.uint8)), "8 bits a value and grey values"),
    "1 bit": (saved(SOUND > 0), "1 bits a value and grey values"),
    "palette": (lambda path: Image.new("P", (WIDTH, HEIGHT)).save(path), "bits a value and a palette"),
    "wider": (saved(np.zeros((HEIGHT, WIDTH + 1), np.uint16)), f"{WIDTH + 1}x{HEIGHT}, not {WIDTH}x{HEIGHT}"),
    "turned": (saved(np.ascontiguousarray(SOUND.T)), f"{HEIGHT}x{WIDTH}, not {WIDTH}x{HEIGHT}"),
    "JPEG": (lambda path: Image.new("L", (WIDTH, HEIGHT)).save(path, "JPEG"), "it is no PNG file"),
    "text": (lambda path: path.write_bytes(b"broken"), "it is no PNG file"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:90]), "cannot be decoded"),
    "missing": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("evaluator", [FastCityscapesInstanceEvaluator, CityscapesInstanceMetrics])
@pytest.mark.parametrize("name", BROKEN_TRUTH)
def test_both_evaluators_name_the_truth_file_that_is_broken(cityscapes, evaluator, name):
    break_it, problem = BROKEN_TRUTH[name]
    images = random_images(cityscapes, 0, count=3)
    path = cityscapes / "ulm" / "ulm_000002_000019_gtFine_instanceIds.png"
    break_it(path)
    with pytest.raises(UserError) as caught:
        scores_of(evaluator(NAME), images)
    sentence = explanation(caught.value)
    assert problem in sentence and sentence.count(str(path)) == 1


@pytest.mark.parametrize("evaluator", [FastCityscapesInstanceEvaluator, CityscapesInstanceMetrics])
def test_an_unknown_class_is_a_sentence(cityscapes, evaluator):
    images = random_images(cityscapes, 0, count=1)
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(thing_classes=["cat"] * len(CLASSES), gt_dir=str(cityscapes))
    with pytest.raises(UserError, match="'cat' is not one of Cityscapes"):
        scores_of(evaluator(NAME), images)
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(thing_classes=[], gt_dir=str(cityscapes))
    with pytest.raises(UserError, match="the data set has 0 classes; set MODEL.ROI_HEADS.NUM_CLASSES"):
        scores_of(evaluator(NAME), images)


def _evaluate_on_rank(rank, rendezvous, parts, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    try:
        scores = scores_of(FastCityscapesInstanceEvaluator(NAME), parts[rank])
    except UserError as error:
        scores = str(error)
    results.put((rank, scores))
    torch.distributed.destroy_process_group()


def on_two_processes(rendezvous, parts):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [
        context.Process(target=_evaluate_on_rank, args=(rank, rendezvous, parts, results), daemon=True)
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    collected = dict(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=30)
    return collected


def test_two_processes_score_as_one_and_share_a_failure(cityscapes):
    images = random_images(cityscapes, 3)
    alone = scores_of(FastCityscapesInstanceEvaluator(NAME), images)
    parts = images[:2], images[2:]
    assert on_two_processes(cityscapes / "first", parts) == {0: alone, 1: None}
    broken = cityscapes / "ulm" / "ulm_000004_000019_gtFine_instanceIds.png"
    broken.unlink()
    collected = on_two_processes(cityscapes / "second", parts)
    assert f"{broken} is missing" in collected[0] and collected[1] is None
