"""Adversarial models on a shallow ResNet, built and trained in tenths of a second, and images for them."""

from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, ResNet, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from gan_plugin import add_gan_config

BASE = Path(__file__).resolve().parents[2] / "configs/quick_schedules/Base-GAN-RCNN-scratch.yaml"
# of the stem and the stages; each differs, since only then has a block with a stride the shortcut that it needs
WIDTHS = (8, 9, 12, 16, 24)
# of the pyramid of the tiny config
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
def build_shallow_fpn(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's ResNet of one block a stage, and narrow, under its pyramid: 0.02 million parameters."""
    norm, names = cfg.MODEL.RESNETS.NORM, ["res2", "res3", "res4", "res5"]
    stages = [
        ResNet.make_stage(
            BasicBlock,
            1,
            stride_per_block=[stride],
            in_channels=WIDTHS[stage],
            out_channels=WIDTHS[stage + 1],
            norm=norm,
        )
        for stage, stride in enumerate((1, 2, 2, 2))
    ]
    stem = BasicStem(input_shape.channels, WIDTHS[0], norm)
    bottom_up = ResNet(stem, stages, out_features=names, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
    return FPN(bottom_up, names, cfg.MODEL.FPN.OUT_CHANNELS, top_block=LastLevelMaxPool())


def tiny_cfg() -> CfgNode:
    """The scratch config made smaller still: 2 classes, adversarial, joint."""
    cfg = get_cfg()
    add_gan_config(cfg)
    cfg.merge_from_file(str(BASE))
    cfg.MODEL.BACKBONE.NAME = build_shallow_fpn.__name__
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    cfg.MODEL.GAN.START_ITER = 0
    cfg.MODEL.GAN.WARMUP_ITERS = 0
    cfg.MODEL.GAN.VIS_PERIOD = 0
    cfg.MODEL.GAN.MODE = "joint"
    cfg.MODEL.GAN.MASK.MATCHING = "proposal"
    return cfg


def make_inputs(count: int = 2, instances: int = 3, seed: int = 0, side: int = 96) -> list[dict]:
    """Model inputs with `instances` bright ellipses each, of classes 0 and 1 in turn."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inputs = []
    for number in range(count):
        image = torch.rand(3, side, side, generator=generator) * 60
        masks = torch.zeros(instances, side, side, dtype=torch.bool)
        for index in range(instances):
            y, x, height, width = (torch.rand(4, generator=generator) * 30 + torch.tensor([30.0, 30.0, 8, 8])).tolist()
            masks[index] = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
            image[:, masks[index]] += 100 + 50 * index
        truth = Instances((side, side))
        truth.gt_masks = BitMasks(masks)
        truth.gt_boxes = truth.gt_masks.get_bounding_boxes() if instances else Boxes(torch.zeros(0, 4))
        truth.gt_classes = torch.arange(instances) % 2
        inputs.append({"image": image, "instances": truth, "height": side, "width": side, "image_id": number})
    return inputs


def small(cfg: CfgNode, *changes: dict) -> CfgNode:
    """A copy of the tiny config without batch statistics, with some keys changed."""
    cfg = cfg.clone()
    keys = {key: value for change in changes for key, value in change.items()}
    if "MODEL.POINT_HEAD.NUM_CLASSES" in keys:
        add_pointrend_config(cfg)
    cfg.MODEL.RESNETS.NORM = ""
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
