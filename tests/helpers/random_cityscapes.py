"""Random Cityscapes truth and predictions for it, small, with all that the official rules tell apart."""

import numpy as np
import torch
from cityscapesscripts.helpers.labels import name2label
from detectron2.structures import Instances
from PIL import Image

HEIGHT, WIDTH = 72, 120
# caravans can be predicted here but are not evaluated; there is never a train
CLASSES = ["person", "car", "bus", "caravan", "bicycle", "train"]
# road, pole, and void ground: unlabelled, ego vehicle, parking, a group of caravans
GROUND = (7, 17, 0, 1, 9, 29)


def write_truth(root, number, ids):
    """The record of an image whose instance ids are now under `root`."""
    Image.fromarray(ids).save(root / "ulm" / f"ulm_{number:06d}_000019_gtFine_instanceIds.png")
    return {"file_name": f"leftImg8bit/ulm/ulm_{number:06d}_000019_leftImg8bit.png"}


def as_instances(masks, classes, scores):
    found = Instances((HEIGHT, WIDTH))
    found.pred_masks = torch.from_numpy(np.array(masks, bool).reshape(-1, HEIGHT, WIDTH))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    found.scores = torch.tensor(scores, dtype=torch.float32)
    return found


def box(random, least, most):
    height, width = random.integers(least, most, 2)
    y, x = random.integers(0, HEIGHT - height), random.integers(0, WIDTH - width)
    return slice(y, y + height), slice(x, x + width)


def random_ids(random):
    """(H, W) uint16: ground, void, groups, small groups, small and large instances that hide each other."""
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    for number in range(14):
        label = name2label[CLASSES[random.integers(0, 5)]].id
        what = (GROUND[random.integers(len(GROUND))], label, 1000 * label + number, 1000 * label + number)
        ids[box(random, 6, 30)] = what[random.integers(4)]
    return ids


def random_predictions(random, ids):
    """Masks near each piece of truth, doubles of them, boxes anywhere, empty masks; scores from ten values."""
    masks, classes = [], []
    for i in np.unique(ids):
        label = i if i < 1000 else i // 1000
        names = [name for name in CLASSES if name2label[name].id == label]
        for _ in range(random.integers(0, 4)):
            mask = np.roll(ids == i, random.integers(-2, 3, 2), axis=(0, 1))
            mask[box(random, 2, 20)] ^= random.random() < 0.3
            masks.append(mask)
            classes.append(CLASSES.index(names[0]) if names and random.random() < 0.9 else random.integers(0, 5))
    for _ in range(8):
        masks.append(np.zeros((HEIGHT, WIDTH), bool))
        if random.random() < 0.8:
            masks[-1][box(random, 4, 30)] = True
        classes.append(random.integers(0, 5))
    return as_instances(masks, classes, random.integers(1, 11, len(masks)) / 10)


def random_images(root, seed, count=5):
    """[(record, output)]: the second image has no truth, the third no prediction, the fourth no "instances"."""
    random = np.random.default_rng(seed)
    images = []
    for number in range(count):
        ids = random_ids(random)
        found = random_predictions(random, ids)
        record = write_truth(root, number, np.full_like(ids, GROUND[seed % 3]) if number == 1 else ids)
        images.append((record, {} if number == 3 else {"instances": found[:0] if number == 2 else found}))
    return images


def scores_of(evaluator, images):
    evaluator.reset()
    for record, output in images:
        evaluator.process([record], [output])
    return evaluator.evaluate()
