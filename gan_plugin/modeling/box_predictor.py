"""The box head's last layers, which also hand out the boxes they drew."""

from typing import Any

import torch
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances

from .samples import BOX_SAMPLES_KEY, BoxSamples


class AdversarialFastRCNNOutputLayers(FastRCNNOutputLayers):
    """FastRCNNOutputLayers whose training losses are accompanied by `BoxSamples`; all else is Detectron2's."""

    @classmethod
    def adopt(cls, predictor: FastRCNNOutputLayers) -> "AdversarialFastRCNNOutputLayers":
        """Take over the layers and the settings of a built predictor; draws no random number, unlike building one."""
        adopted = cls.__new__(cls)
        adopted.__dict__.update(predictor.__dict__)
        return adopted

    def losses(self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]) -> dict[str, Any]:
        """As FastRCNNOutputLayers.losses, and `BOX_SAMPLES_KEY: BoxSamples` of the positive proposals."""
        losses = super().losses(predictions, proposals)
        return losses | {BOX_SAMPLES_KEY: self._samples(predictions[1], proposals, losses["loss_box_reg"])}

    def _samples(self, deltas: torch.Tensor, proposals: list[Instances], loss: torch.Tensor) -> BoxSamples:
        classes = torch.cat([image.gt_classes for image in proposals])
        (positive,) = torch.nonzero((classes >= 0) & (classes < self.num_classes), as_tuple=True)
        counts = torch.tensor([len(image) for image in proposals], device=deltas.device)
        images = torch.arange(len(proposals), device=deltas.device).repeat_interleave(counts)[positive]
        classes = classes[positive]

        # (P, K, 4) or, class-agnostic, (P, 1, 4)
        own = deltas[positive].view(len(positive), deltas.shape[1] // 4, 4)
        own = own[torch.arange(len(positive), device=deltas.device), classes if own.shape[1] > 1 else classes * 0]
        from_boxes = torch.cat([image.proposal_boxes.tensor for image in proposals])[positive]
        decoded = self.box2box_transform.apply_deltas(own, from_boxes)
        # (P, 4) width, height, width, height: no box reaches out of its image
        limits = torch.tensor([[*image.image_size[::-1]] * 2 for image in proposals], device=deltas.device)[images]
        predicted = torch.minimum(decoded.clamp(min=0), limits.to(decoded.dtype))
        return BoxSamples(predicted, _truth(proposals, from_boxes)[positive], images, classes, (), loss, deltas)


def _truth(proposals: list[Instances], like: torch.Tensor) -> torch.Tensor:
    """(P, 4) annotated boxes of all proposals; an image without annotations has none, and nothing positive either."""
    boxes = [image.gt_boxes.tensor if image.has("gt_boxes") else like.new_zeros(len(image), 4) for image in proposals]
    return torch.cat(boxes)
