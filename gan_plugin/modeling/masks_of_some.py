"""The loss of masks where only some objects have one, whatever mask head computes it; and a teacher for the others.

The teacher is the model's own average (Tarvainen and Valpola 2017, arXiv 1703.01780). It draws in the annotated boxes,
so only outlines can be wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

from gan_plugin.errors import UserError

Begin = Callable[[list[Instances]], None]
# by position or by name
_Arguments = dict[int | str, Any]
# of the instances: (N, h, w), probabilities on a grid over the annotated box
FIELD = "gt_taught"
# a block in which the model holds its average
Average = Callable[[], AbstractContextManager[Any]]


def split_masks(stack: ExitStack, heads: Any, begin: Begin | None = None) -> None:
    """Let RoI heads compute their losses of masks in one forward pass from the objects that have a mask.

    The mask branch is run for these proposals by its own code, so its losses are those of a batch that has no others.
    It is run once more for the foreground proposals whose objects have none, if somebody looks at what it draws of
    them; its losses of these, taken of stand-ins, are thrown away. Where no proposal has a mask the losses are zeros
    that reach every parameter. Nothing is changed in a pass where every foreground proposal has a mask.

    Args:
        stack: closed after the forward pass.
        heads: `model.roi_heads`: with a method `_forward_mask(features, instances)` as Detectron2's StandardROIHeads
            have it, or with a `mask_head` that is called with a tensor of features, a row for each instance.
        begin: is told before each run of which proposals it is; None if nobody looks.

    Raises:
        UserError: after the pass, if the heads have not used it.
    """
    branch = hasattr(heads, "_forward_mask")
    owner, method = (heads, "_forward_mask") if branch else (heads.mask_head, "forward")
    original, own = getattr(owner, method), vars(owner).get(method)
    split = _Split(original, getattr(heads, "num_classes", None), begin, pooled=not branch)
    setattr(owner, method, split)
    stack.callback(setattr, owner, method, own) if own is not None else stack.callback(delattr, owner, method)

    def has_run(kind: Any, *error: Any) -> None:
        if kind is None and not split.has_run:
            raise _unknown(heads)

    stack.push(has_run)


def require_mask_branch(model: Any) -> None:
    """Raise a UserError if the model has nothing that `split_masks` could split."""
    heads = getattr(model, "roi_heads", None)
    if not (hasattr(heads, "_forward_mask") or getattr(heads, "mask_head", None) is not None):
        raise _unknown(model if heads is None else heads)


def has_mask(image: Instances) -> torch.Tensor:
    """(R,) bool: which objects, or those of which proposals, of an image have a mask; all, if the data do not say."""
    if image.has("gt_has_mask"):
        return image.gt_has_mask
    return torch.ones(len(image), dtype=torch.bool, device=image.gt_classes.device)


class _Split:
    """A mask branch that stands for `run`; `pooled` says that its features have a row for each proposal."""

    def __init__(self, run: Callable[..., Any], classes: int | None, begin: Begin | None, pooled: bool) -> None:
        self.run, self.classes, self.begin, self.pooled = run, classes, begin, pooled
        self.has_run = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.has_run = True
        given: _Arguments = dict(enumerate(arguments))
        given.update(**named)
        place, proposals = _proposals_in(given)
        lacking = [self._lacks(image) for image in proposals]
        if not any(bool(rows.any()) for rows in lacking):
            return self.run(*arguments, **named)
        having = [self._has(image) for image in proposals]
        learns = any(bool(rows.any()) for rows in having)
        result = None
        if learns:
            result = self._run_for(given, place, [~rows for rows in lacking])
        if self.begin is None and learns:
            return result
        # its statistics are those of stand-ins
        with EventStorage(get_event_storage().iter):
            other = self._run_for(given, place, lacking)
        return result if learns else _silenced(other)

    def _run_for(self, given: _Arguments, place: int | str, keep: list[torch.Tensor]) -> Any:
        rows = torch.cat(keep)
        chosen = [image[index] for image, index in zip(given[place], keep, strict=True)]
        if self.pooled:
            given = {name: _rows(value, rows) for name, value in given.items()}
        given = {**given, place: chosen}
        if self.begin is not None:
            self.begin(chosen)
        by_position = [value for name, value in given.items() if isinstance(name, int)]
        return self.run(*by_position, **{name: value for name, value in given.items() if isinstance(name, str)})

    def _foreground(self, image: Instances) -> torch.Tensor:
        if self.classes is None:
            return torch.ones(len(image), dtype=torch.bool, device=image.gt_classes.device)
        return (image.gt_classes >= 0) & (image.gt_classes < self.classes)

    def _has(self, image: Instances) -> torch.Tensor:
        return self._foreground(image) & has_mask(image)

    def _lacks(self, image: Instances) -> torch.Tensor:
        return self._foreground(image) & ~has_mask(image)


def _proposals_in(given: _Arguments) -> tuple[int | str, list[Instances]]:
    for name, value in given.items():
        if isinstance(value, list | tuple) and value and all(isinstance(image, Instances) for image in value):
            return name, list(value)
    raise UserError(
        "MODEL.GAN.MASK.BOX_ONLY is True, but the mask branch is given no proposals, so which of its masks have a "
        "truth is unknown; set it to False."
    )


def _rows(value: Any, rows: torch.Tensor) -> Any:
    """Features of all proposals become those of some; whatever else there is stays."""
    return value[rows] if isinstance(value, torch.Tensor) and len(value) == len(rows) else value


def _silenced(result: Any) -> Any:
    """Losses times zero, alone or beside something else."""
    if isinstance(result, tuple):
        return tuple(_silenced(part) for part in result)
    if isinstance(result, dict):
        return {name: value * 0 if isinstance(value, torch.Tensor) else value for name, value in result.items()}
    return result


def _unknown(heads: Any) -> UserError:
    return UserError(
        f"MODEL.GAN.MASK.BOX_ONLY is for RoI heads with a mask head, and {type(heads).__name__} runs none that could "
        "be observed; set it to False."
    )


@torch.no_grad()
def ask_teacher(model: Any, inputs: Sequence[dict[str, Any]], average: Average) -> None:
    """Give the instances of training inputs the field FIELD, where an object of the image has no mask.

    Args:
        model: a GeneralizedRCNN in training mode, which is as it was afterwards.
        inputs: of a step.
        average: of the model.
    """
    asked = [item for item in inputs if not bool(has_mask(item["instances"]).all())]
    if not asked:
        return
    given = []
    for item in asked:
        truth = item["instances"]
        boxes = Instances(truth.image_size)
        boxes.pred_boxes, boxes.pred_classes = truth.gt_boxes, truth.gt_classes
        given.append(boxes)
    with average(), modes_kept(model):
        model.eval()
        drawn = model.inference(asked, detected_instances=given, do_postprocess=False)
    for item, found in zip(asked, drawn, strict=True):
        item["instances"].set(FIELD, found.pred_masks[:, 0].float().to(item["instances"].gt_classes.device))


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """A block after which every module is in the mode that it had before: a user may keep some in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def train_without_updates(model: nn.Module) -> None:
    """Training mode, in which a model makes its losses, but for batch normalisation: that goes by what it has learnt,
    and learns nothing of the batch."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def taught_masks(image: Instances, side: int) -> torch.Tensor:
    """(R, side, side) probabilities in [0, 1]: what the teacher drew of one image's proposals, each in its proposal's
    box, 0 outside of the annotated box. Zeros where it was not asked."""
    boxes = image.proposal_boxes.tensor
    if not image.has(FIELD) or not len(image):
        return boxes.new_zeros(len(image), side, side)
    truth = image.gt_boxes.tensor
    steps = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    # from the middle of each cell in pixels to a place in [-1, 1] of the annotated box
    places = []
    for low, high in ((0, 2), (1, 3)):
        pixels = boxes[:, low, None] + steps * (boxes[:, high] - boxes[:, low])[:, None]
        length = (truth[:, high] - truth[:, low]).clamp(min=1e-6)
        places.append(2 * (pixels - truth[:, low, None]) / length[:, None] - 1)
    across, down = places
    grid = torch.stack([across[:, None, :].expand(-1, side, -1), down[:, :, None].expand(-1, -1, side)], dim=-1)
    taught: torch.Tensor = image.get(FIELD)
    return F.grid_sample(taught[:, None].to(grid.dtype), grid, align_corners=False)[:, 0]


def teacher_loss(
    logits: torch.Tensor, taught: torch.Tensor, confidence: float, believed: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy to the teacher's binary mask, of the pixels of which it is sure; a mean over all pixels, as in
    FixMatch (Sohn et al. 2020, arXiv 2001.07685, eq 4), so that a teacher who is sure of little pulls little.

    Args:
        logits: (R, M, M).
        taught: (R, M, M), the teacher's probabilities.
        confidence: in [0.5, 1], how sure it is at least, on either side.
        believed: (R, M, M) bool, the pixels that count; None for all.

    Returns:
        A scalar; without objects a zero that reaches the logits.
    """
    if not len(logits):
        return logits.sum() * 0
    sure = torch.maximum(taught, 1 - taught) >= confidence
    if believed is not None:
        sure = sure & believed
    errors = F.binary_cross_entropy_with_logits(logits.float(), (taught > 0.5).float(), reduction="none")
    return (errors * sure).mean()
