"""Detectron2's RoI heads that hand their boxes and the features below them to the adversaries."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.structures import Instances

from .box_predictor import AdversarialFastRCNNOutputLayers
from .samples import with_features


class _HandsOutSamples:
    """Mixed into RoI heads: the samples in their training losses know the features, and the box head makes some."""

    hands_out_features = True
    box_in_features: list[str]
    mask_in_features: list[str]
    box_predictor: Any
    mask_on: bool

    def _forward_box(self, features: dict[str, torch.Tensor], proposals: list[Instances], *targets: Any) -> Any:
        result = super()._forward_box(features, proposals, *targets)  # type: ignore[misc]
        return with_features(result, features, self.box_in_features) if isinstance(result, dict) else result

    def _forward_mask(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        result = super()._forward_mask(features, instances)  # type: ignore[misc]
        # Without masks, nothing names the levels that they would come from.
        has_samples = self.mask_on and isinstance(result, dict)
        return with_features(result, features, self.mask_in_features) if has_samples else result

    @property
    def emits_box_samples(self) -> bool:
        """Whether training returns `BoxSamples`."""
        predictor = self.box_predictor
        last = predictor[-1] if isinstance(predictor, torch.nn.ModuleList) else predictor
        return isinstance(last, AdversarialFastRCNNOutputLayers)


@ROI_HEADS_REGISTRY.register()
class AdversarialROIHeads(_HandsOutSamples, StandardROIHeads):
    """StandardROIHeads, parameter by parameter, for the adversaries that look at boxes or RoI features."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        arguments = super()._init_box_head(cfg, input_shape)
        if cfg.MODEL.GAN.ENABLED and cfg.MODEL.GAN.BOX.ENABLED:
            arguments["box_predictor"] = AdversarialFastRCNNOutputLayers.adopt(arguments["box_predictor"])
        return arguments


@ROI_HEADS_REGISTRY.register()
class AdversarialCascadeROIHeads(_HandsOutSamples, CascadeROIHeads):
    """The same for CascadeROIHeads; the box adversary judges the boxes of the last stage, the ones inference uses."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        arguments = super()._init_box_head(cfg, input_shape)
        if cfg.MODEL.GAN.ENABLED and cfg.MODEL.GAN.BOX.ENABLED:
            *others, last = arguments["box_predictors"]
            arguments["box_predictors"] = [*others, AdversarialFastRCNNOutputLayers.adopt(last)]
        return arguments
