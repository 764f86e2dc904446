"""The downstream comparison: losses and scores by hand, a segmenter that learns, arms that are comparable."""

import json
import math

import numpy as np
import pytest
import torch
from coigan.data.images import write_png
from coigan.segmentation import training
from coigan.segmentation.coco import CocoMasks
from coigan.segmentation.comparison import compare
from coigan.segmentation.networks import (
    LOSSES,
    NETWORKS,
    UNet,
    border,
    build_segmenter,
    dice,
    focal,
    log_cosh_dice,
    segmentation_loss,
)
from coigan.segmentation.training import (
    ByClass,
    Confusion,
    SegmentOptions,
    build_optimizer,
    cccd,
    evaluate_segmenter,
    train_segmenter,
)
from pycocotools import mask as coco_mask
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import TensorDataset
from torchvision.models import segmentation

from gan_plugin.errors import UserError


def squares(count, seed, brightness=0.3):
    """Grey noise with a brighter square each, and its mask."""
    draw = torch.Generator().manual_seed(seed)
    images, masks = torch.rand(count, 3, 24, 24, generator=draw) * 0.4, torch.zeros(count, 24, 24)
    for number in range(count):
        y, x = torch.randint(2, 14, (2,), generator=draw).tolist()
        masks[number, y : y + 8, x : x + 8] = 1
        images[number] += brightness * masks[number]
    return TensorDataset(images, masks)


def test_losses_by_hand():
    logits = torch.tensor([[[math.log(3.0), -math.log(3.0)]]])  # probabilities 0.75 and 0.25
    masks = torch.tensor([[[1.0, 0.0]]])
    both = 1 - (2 * 0.75 + 1) / (1 + 1 + 1)
    torch.testing.assert_close(dice(logits, masks), torch.tensor([both]))  # the same for either class here
    torch.testing.assert_close(log_cosh_dice(logits, masks), torch.tensor([2.3 * math.log(math.cosh(both))]))
    entropy = -math.log(0.75)
    expected = (0.25 + 0.75) / 2 * 0.25**2 * entropy
    torch.testing.assert_close(focal(logits, masks), torch.tensor([expected]))
    # two columns are within three pixels of any outline
    torch.testing.assert_close(border(logits, masks), torch.tensor([entropy]))
    assert border(logits, torch.zeros(1, 1, 2)).item() == 0


def test_clean_images_count_a_hundredth():
    logits = torch.zeros(2, 1, 2)
    masks = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    damaged, clean = LOSSES["bce"](logits, masks).tolist()
    assert damaged == pytest.approx(1.2 * math.log(2)) and clean == pytest.approx(0.1 * math.log(2))
    assert segmentation_loss("bce", logits, masks).item() == pytest.approx((damaged + 0.01 * clean) / 1.01)
    with pytest.raises(UserError, match="log_cosh_dice"):
        segmentation_loss("tversky", logits, masks)


def test_scores_of_a_counted_case():
    confusion = Confusion()
    logits = torch.tensor([[[5.0, 5.0, -5.0, -5.0, 0.2]]])  # 0.2 is a probability of 0.55, below the threshold
    confusion.add(logits, torch.tensor([[[1.0, 0.0, 1.0, 0.0, 0.0]]]))
    assert (confusion.hit, confusion.invented, confusion.missed, confusion.clean) == (1, 1, 1, 2)
    scores = confusion.scores()
    assert scores["IoU"] == pytest.approx(1 / 3) and scores["F1"] == 0.5 and scores["accuracy"] == 0.6
    assert Confusion().scores()["precision"] == 0


def test_unet_keeps_any_size():
    assert UNet(4, 3)(torch.rand(2, 3, 21, 30)).shape == (2, 21, 30)
    assert build_segmenter("deeplabv3_mobilenet").eval()(torch.rand(1, 3, 64, 64)).shape == (1, 64, 64)
    with pytest.raises(UserError, match="unet_small"):
        build_segmenter("segnet")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_one_output(name):
    with torch.device("meta"):
        network = build_segmenter(name).eval()
        assert network(torch.rand(2, 3, 64, 48)).shape == (2, 64, 48)
    published = {
        "fcn_r50": segmentation.FCN_ResNet50_Weights.DEFAULT,
        "fcn_r101": segmentation.FCN_ResNet101_Weights.DEFAULT,
        "deeplabv3_r50": segmentation.DeepLabV3_ResNet50_Weights.DEFAULT,
        "deeplabv3_r101": segmentation.DeepLabV3_ResNet101_Weights.DEFAULT,
    }
    if name in published:
        # torchvision's count is with 21 classes and an auxiliary head: 3x3 convolution, normalisation, 1x1 convolution
        auxiliary = 1024 * 256 * 9 + 2 * 256 + 257 * 21
        classes = 20 * (513 if name.startswith("fcn") else 257)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == published[name].meta["num_params"] - auxiliary - classes


def test_the_validation_loss_is_of_probabilities():
    """COIGAN's second code gave it raw logits."""

    class Fixed(torch.nn.Module):
        def forward(self, images):
            return torch.full(images.shape[:1] + images.shape[2:], math.log(3.0))

    masks = torch.zeros(1, 2, 2)
    masks[0, 0] = 1
    scores = evaluate_segmenter(Fixed(), TensorDataset(torch.rand(1, 3, 2, 2), masks), SegmentOptions(loss="dice"))
    defect = 1 - (2 * 2 * 0.75 + 1) / (4 * 0.75 + 2 + 1)
    background = 1 - (2 * 2 * 0.25 + 1) / (4 * 0.25 + 2 + 1)
    assert scores["loss"] == pytest.approx((1.2 * defect + 0.1 * background) / 1.3)
    assert scores["IoU"] == 0.5  # 0.75 is above the threshold everywhere


def test_optimizers_and_schedules_are_the_sources():
    network = torch.nn.Linear(1, 1)
    adam, falling = build_optimizer(network, SegmentOptions())
    assert isinstance(adam, torch.optim.AdamW) and (adam.defaults["lr"], adam.defaults["betas"]) == (5e-4, (0.0, 0.9))
    assert (falling.mode, falling.patience, falling.cooldown, falling.factor) == ("min", 10, 3, 0.5)
    assert falling.min_lrs == [1e-8]
    sgd, rising = build_optimizer(network, cccd())
    chosen = [sgd.defaults[key] for key in ("lr", "momentum", "weight_decay")]
    assert isinstance(sgd, torch.optim.SGD) and chosen == [3e-2, 0.95, 1e-8] and cccd().amp
    assert (rising.mode, rising.patience, rising.factor) == ("max", 10, 0.95)


def test_a_segmenter_learns_and_repeats():
    options = SegmentOptions("unet_small", "dice", steps=60, batch=8, val_every=30)
    test = squares(8, seed=9)
    scores = train_segmenter([squares(24, seed=1)], squares(8, seed=8), test, options, seed=0)
    assert scores["IoU"] > 0.5 and not scores["collapsed"]
    short = SegmentOptions("unet_small", steps=3, batch=4, val_every=3)
    first, second = (train_segmenter([squares(8, seed=1)], test, test, short, seed=5) for _ in range(2))
    assert first == second


def test_the_average_is_of_the_weights_after_each_step():
    seen, kept = [], []

    def note(optimizer, *_):
        seen.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])

    options = SegmentOptions("unet_small", steps=3, batch=2, val_every=3, average=0.5)
    handle = register_optimizer_step_post_hook(note)
    try:
        data, val = [squares(8, seed=1)], squares(2, seed=9)
        train_segmenter(data, val, val, options, 0, lambda net: kept.extend(net.parameters()))
    finally:
        handle.remove()
    for average, first, second, third in zip(kept, *seen, strict=True):
        torch.testing.assert_close(average.detach(), first / 4 + second / 4 + third / 2)


def test_presets_are_the_sources():
    assert (SegmentOptions().batch, SegmentOptions().val_every, SegmentOptions().threshold) == (12, 1000, 0.6)
    assert (cccd().val_every, cccd().optimizer, cccd().plateau, cccd(steps=5).steps) == (350, "sgd", "max", 5)


def test_the_comparison_is_paired_and_continues(tmp_path):
    options = SegmentOptions("unet_small", steps=2, batch=2, val_every=2)
    test, real, more = squares(2, 9), squares(4, 1), squares(4, 2)
    arguments = {"options": options, "out": tmp_path, "sources": {"real": "a"}}
    report = compare(real, test, test, {"gan": more}, [0, 1, 2], **arguments)
    assert [(run["arm"], run["seed"]) for run in report["runs"]] == [(a, s) for s in range(3) for a in ("real", "gan")]
    by_hand = [
        report["runs"][2 * seed + 1]["scores"]["IoU"] - report["runs"][2 * seed]["scores"]["IoU"] for seed in range(3)
    ]
    found = report["summary"]["IoU"]["gan"]["difference"]
    assert (found["mean"], found["verdict"]) == (pytest.approx(np.mean(by_hand)), "too few seeds")
    seconds = json.loads((tmp_path / "results.json").read_text())["runs"][0]["seconds"]
    again = compare(real, test, test, {"gan": more}, [0, 1, 2, 3], **arguments)
    assert len(again["runs"]) == 8 and again["runs"][0]["seconds"] == seconds
    with pytest.raises(UserError, match="other data or options"):
        compare(real, test, test, {"gan": more}, [0, 1, 2], options=options, out=tmp_path, sources={"real": "b"})


def test_masks_of_a_coco_json(tmp_path):
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "a.png", np.full((4, 6, 3), 51, np.uint8))
    hole = np.zeros((4, 6), np.uint8)
    hole[1:4, 3:6] = 1
    hole[2, 4] = 0
    encoded = coco_mask.encode(np.asfortranarray(hole))
    encoded["counts"] = encoded["counts"].decode()
    objects = [encoded, [[0, 0, 2, 0, 2, 2, 0, 2]], {"size": [4, 6], "counts": [23, 1]}]
    annotations = [{"image_id": 1, "category_id": 1, "segmentation": segmentation} for segmentation in objects]
    image = {"id": 1, "file_name": "a.png", "height": 4, "width": 6}
    (tmp_path / "a.json").write_text(
        json.dumps({"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "defect"}]})
    )
    pixels, mask = CocoMasks(tmp_path / "a.json")[0]
    expected = hole.astype(bool)
    expected[:2, :2] = True
    assert pixels.shape == (3, 4, 6) and pixels.max().item() == pytest.approx(0.2)
    assert (mask.numpy() > 0).tolist() == expected.tolist()
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(UserError, match="no COCO JSON"):
        CocoMasks(tmp_path / "b.json")


class _Scripted(torch.nn.Module):
    """Its only weight counts the steps; what it finds depends on that."""

    def __init__(self):
        super().__init__()
        self.step = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images):
        # bright pixels, more of them with every step
        return 50 * (images.mean(1) - 1 + 0.2 * self.step)


def test_the_test_set_decides_nothing(monkeypatch):
    """After two of five steps validation is best; test images would be best after four."""
    grey = torch.linspace(0, 1, 64).reshape(1, 1, 1, 64).expand(1, 3, 8, 64).clone()

    def truth(share):
        return TensorDataset(grey, (grey[:, 0] > 1 - share).float())

    class Count:
        defaults = {}

        def __init__(self, network):
            self.network = network

        def zero_grad(self):
            pass

        def step(self):
            with torch.no_grad():
                self.network.step += 1

    class Watch:
        def __init__(self):
            self.seen = []

        def step(self, value):
            self.seen.append(value)

    watch, kept = Watch(), []
    monkeypatch.setattr(training, "build_segmenter", lambda name: _Scripted())
    monkeypatch.setattr(training, "build_optimizer", lambda network, options: (Count(network), watch))
    options = SegmentOptions("unet_small", steps=5, batch=1, val_every=1, threshold=0.5, plateau="max")
    scores = train_segmenter([truth(0.5)], truth(0.4), truth(0.8), options, 0, lambda net: kept.append(net.step.item()))
    assert kept == [2] and scores["step"] == 2 and scores["val_IoU"] == max(watch.seen) > 0.9 and len(watch.seen) == 5
    assert scores["IoU"] == pytest.approx(0.5, abs=0.05)  # what is found is half of what there is


def test_a_collapsed_segmenter_is_named():
    def confusion(found, true):
        one = Confusion()
        one.add((torch.as_tensor(found).float() - 0.5)[None] * 20, torch.as_tensor(true).float()[None])
        return one.collapsed

    few = np.zeros((10, 10), bool)
    few[2, 3:5] = True
    assert confusion(np.zeros((10, 10)), few) == "finds nothing" and confusion(np.ones((10, 10)), few) != ""
    assert confusion(few, few) == "" == confusion(np.zeros((10, 10)), np.zeros((10, 10)))
    assert confusion(np.ones((10, 10)), np.ones((10, 10))) == ""


def test_scores_of_each_class_by_hand():
    scores = ByClass(("a", "b", "none"))
    found, masks = np.zeros((4, 10), bool), np.zeros((3, 4, 10), bool)
    masks[0, 0, :4], masks[1, 1, :6] = True, True
    found[0, 2:5] = True  # two pixels of a, one of nothing
    found[1, :3] = True  # three pixels of b
    scores.add(found, masks)
    only_b = np.zeros((3, 4, 10), bool)
    only_b[1, 3, :2] = True
    scores.add(only_b[1], only_b)
    rows = scores.scores()
    # beside b there is the same pixel of nothing; what is found under the other class is not held against it
    assert rows["a"] == {"IoU": 2 / 5, "recall": 2 / 4}
    assert rows["b"] == {"IoU": (3 + 2) / (6 + 1 + 2), "recall": 5 / 8} and rows["none"]["IoU"] is None


def test_what_is_held_out_has_whole_pictures_and_all_classes(steel):
    data = CocoMasks(steel / "train/annotations.json")
    train, val = data.held_out(0.25, 0)
    assert sorted([*train.indices, *val.indices]) == list(range(len(data))) and len(val) == pytest.approx(len(data) / 4)
    names = [path.name for path, *_ in data._images]
    pictures = [{names[number].rsplit("_", 2)[0] for number in part.indices} for part in (train, val)]
    assert not pictures[0] & pictures[1] and all(pictures)
