"""Adversarial models on a backbone of one convolution, built and trained in a few hundredths of a second."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.utils.events import EventStorage
from torch import nn

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
CHANNELS = 16

BOTH_PLAYERS = {
    "MODEL.ROI_HEADS.NAME": "AdversarialROIHeads",
    "MODEL.GAN.BOX.ENABLED": True,
    "MODEL.GAN.BOX.CHANNELS": (8, 8),
    "MODEL.GAN.BOX.NORM": "GN",
}
CASCADE = {
    "MODEL.ROI_HEADS.NAME": "AdversarialCascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
}
POINT_REND = {
    "MODEL.ROI_MASK_HEAD.NAME": "AdversarialPointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "",
    "MODEL.ROI_MASK_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.NUM_FC": 1,
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True,
    "MODEL.POINT_HEAD.NUM_CLASSES": 2,
    "MODEL.POINT_HEAD.FC_DIM": 16,
    "MODEL.POINT_HEAD.NUM_FC": 2,
}
AGNOSTIC = {
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
}
FEATURES = {
    "MODEL.GAN.MASK.DISCRIMINATOR": "MaskedFeatureDiscriminator",
    "MODEL.GAN.MASK.OBJECTIVE": "MultiLayerL1",
    "MODEL.GAN.MASK.INPUT_SIZE": 14,
    "MODEL.GAN.MASK.CHANNELS": (8, 8, 8, 8),
}


@BACKBONE_REGISTRY.register()
class OneConvBackbone(Backbone):
    """A convolution and its averages over ever larger cells, in place of a feature pyramid."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape.channels, CHANNELS, 3, padding=1)
        self._out_features = list(STRIDES)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.conv(images / 64).tanh()
        return {name: nn.functional.avg_pool2d(features, stride) for name, stride in STRIDES.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=CHANNELS, stride=stride) for name, stride in STRIDES.items()}

    @property
    def size_divisibility(self) -> int:
        return max(STRIDES.values())


def small(cfg: CfgNode, *changes: dict) -> CfgNode:
    """A copy of the tiny config on `OneConvBackbone` with some keys changed."""
    cfg = cfg.clone()
    keys = {key: value for change in changes for key, value in change.items()}
    if "MODEL.POINT_HEAD.NUM_CLASSES" in keys:
        add_pointrend_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "OneConvBackbone"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50
    cfg.merge_from_list([part for item in keys.items() for part in item])
    return cfg


def build(cfg: CfgNode, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(cfg).train()


def losses_of(model: nn.Module, inputs: list[dict], iteration: int = 0, seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    with EventStorage(iteration):
        return model(inputs)
