"""What the discriminator says to the masks of test images, and which parts of a mask its verdict hangs on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.utils.events import EventStorage
from torch import nn
from torchvision.ops import batched_nms

from gan_plugin.data.mappers import CheckedDatasetMapper
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.presenters import drawn_masks
from gan_plugin.modeling.samples import MaskSamples, mask_iou

from .occlusion import occlusion_maps, scores, take

# proposals that overlap more than this are taken to be of one object
_SAME_OBJECT = 0.4
_PER_IMAGE = 4
_CROP = 112


@dataclass(frozen=True)
class JudgedPair:
    """An annotated mask and the predicted one of the same region of interest, both M x M.

    Attributes:
        image: (S, S, 3) uint8 RGB, the region.
        truth, drawn: (M, M) in [0, 1].
        iou: of the two masks, in [0, 1].
        on_truth, on_drawn: the verdicts; see `Verdicts.kind`.
        truth_map, drawn_map: (K, K) each; None where there is none.
    """

    image: np.ndarray
    truth: np.ndarray
    drawn: np.ndarray
    iou: float
    on_truth: float
    on_drawn: float
    truth_map: np.ndarray | None
    drawn_map: np.ndarray


@dataclass(frozen=True)
class Verdicts:
    """Some pairs, in the order of the verdict on the predicted mask.

    Attributes:
        kind: "patches": the discriminator judges patches; verdicts are probabilities of "annotated", averaged over the
                patches, maps hold 0.5 - probability of each.
            "occlusion": it gives one logit; verdicts are probabilities, maps hold by how much the logit rises when a
                window of the predicted mask is replaced by the truth, or one of the annotated mask is blanked.
            "distance": it compares features; the verdict on a predicted mask is the distance of its features to those
                of the truth (0 for the truth itself), maps hold by how much that falls in the same experiment.
            In every map, what is above 0 speaks for "predicted".
        pairs: the pairs.
    """

    kind: str
    pairs: list[JudgedPair]


def judge_masks(cfg: CfgNode, model: Any, records: Sequence[dict[str, Any]], count: int = 6, seed: int = 0) -> Verdicts:
    """Ask the mask discriminator of `model` about masks of `records`, in evaluation mode and without augmentation.

    The masks are made as in training: proposals of the model itself, the head's masks of the true class, the
    presenter's form. Of each object one proposal is taken by chance.

    Args:
        cfg: of the run.
        model: an AdversarialRCNN with its weights.
        records: with annotations; as many of them are used as it takes.
        count: pairs wanted; spread evenly over the verdicts on predicted masks, from the lowest to the highest.
        seed: of the choice.

    Raises:
        UserError: the model has no mask discriminator, or the images show it no object.
    """
    adversary: Adversary | None = model.adversaries["mask"] if "mask" in getattr(model, "adversaries", ()) else None
    if adversary is None:
        raise UserError("This run has no discriminator of masks.")
    _set_modes(model)
    mapper = _mapper(cfg)
    seen: list[_Seen] = []
    iteration = max(cfg.SOLVER.MAX_ITER, cfg.MODEL.GAN.START_ITER + cfg.MODEL.GAN.WARMUP_ITERS) + 1
    with preserved_rng(seed), torch.no_grad(), EventStorage(iteration):
        for record in _spread([record for record in records if record.get("annotations")], 2 * count):
            item: Any = mapper(record)
            if not len(item["instances"]):
                continue
            samples = model.generator_forward([item])[1]["mask"].samples
            seen += [_Seen(take(samples, place), _pixels(cfg, item)) for place in _one_of_each(samples)]
        if not seen:
            raise UserError("No mask of the test images reached the discriminator.")
        return _judged(adversary, seen, count)


@dataclass(frozen=True)
class _Seen:
    """One pair of masks as samples, and the image (H, W, 3) that it is of."""

    sample: MaskSamples
    pixels: np.ndarray


def _judged(adversary: Adversary, seen: Sequence[_Seen], count: int) -> Verdicts:
    both = [scores(adversary, one.sample) for one in seen]
    real, fake = (torch.cat(side) for side in zip(*both, strict=True))
    of_features, of_patches = adversary.objective.judges == "features", real.ndim > 1
    if not of_features:
        # over all of them, since some objectives compare a sample with the mean of the other side
        real, fake = adversary.objective.probabilities(real, fake) or (real, fake)
    pairs = []
    verdicts = fake.flatten(1).mean(1).tolist() if of_patches else fake.tolist()
    for i in _spread(sorted(range(len(seen)), key=lambda i: verdicts[i]), count):
        if of_patches:
            maps = tuple(0.5 - side[i].cpu().numpy() for side in (real, fake))
        else:
            maps = occlusion_maps(adversary, seen[i].sample)
        sample = seen[i].sample
        pairs.append(
            JudgedPair(
                image=_crop(seen[i].pixels, sample.rois[0, 1:].tolist()),
                truth=sample.truth[0].cpu().numpy(),
                drawn=drawn_masks(sample, getattr(adversary.presenter, "fake", "soft"))[0].cpu().numpy(),
                iou=float(mask_iou(sample.logits, sample.truth)),
                on_truth=float(real[i].mean()),
                on_drawn=verdicts[i],
                truth_map=None if of_features else maps[0],
                drawn_map=maps[1],
            )
        )
    return Verdicts("distance" if of_features else "patches" if of_patches else "occlusion", pairs)


def _set_modes(model: nn.Module) -> None:
    # Training alone makes samples; what normalises by the batch must not see one of a single image.
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    adversaries: Any = model.adversaries
    adversaries.eval()


def _mapper(cfg: CfgNode) -> CheckedDatasetMapper:
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return CheckedDatasetMapper(DatasetMapper(cfg, is_train=True, augmentations=[resize]))


def _pixels(cfg: CfgNode, item: dict[str, Any]) -> np.ndarray:
    pixels = item["image"].permute(1, 2, 0).numpy().astype(np.uint8)
    return pixels[..., ::-1] if cfg.INPUT.FORMAT == "BGR" else pixels


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly chosen."""
    if not items:
        return []
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def _one_of_each(samples: MaskSamples) -> tuple[torch.Tensor, ...]:
    """The places of matched masks, by chance one of those that lie on the same object; (1,) each."""
    order = torch.randperm(len(samples)).to(samples.rois.device)
    order = order[samples.matched[order]]
    boxes = samples.rois[order, 1:].float()
    ranks = torch.linspace(1, 0, len(order), device=boxes.device)
    kept = batched_nms(boxes, ranks, samples.classes[order], _SAME_OBJECT)
    # one by one, for `split` makes an empty part of nothing
    return tuple(order[kept][:_PER_IMAGE].unsqueeze(1))


def _crop(pixels: np.ndarray, box: Sequence[float]) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top, right, bottom = (round(value) for value in box)
    rows = slice(min(max(0, top), height - 1), max(bottom, top + 1, 1))
    columns = slice(min(max(0, left), width - 1), max(right, left + 1, 1))
    return cv2.resize(np.ascontiguousarray(pixels[rows, columns]), (_CROP, _CROP), interpolation=cv2.INTER_AREA)
