"""Small stand-ins for what other projects build on Detectron2, each of a kind that a plugin must not disturb."""

import torch
import torch.nn.functional as F
from detectron2.config import configurable, get_cfg
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    GeneralizedRCNN,
    build_backbone,
)
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads, select_foreground_proposals
from detectron2.modeling.roi_heads.cascade_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead, mask_rcnn_inference, mask_rcnn_loss
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.structures import ImageList, Instances
from detectron2.utils.registry import Registry
from small_models import CHANNELS, POINT_REND
from torch import nn

from gan_plugin import add_gan_config


@META_ARCH_REGISTRY.register()
class EdgeRCNN(GeneralizedRCNN):
    """A meta-architecture with a loss, a parameter and an output of its own."""

    @configurable
    def __init__(self, *, edge_weight, **kwargs):
        super().__init__(**kwargs)
        self.edge_weight = edge_weight
        self.edges = nn.Conv2d(CHANNELS, 1, 1)

    @classmethod
    def from_config(cls, cfg):
        return super().from_config(cfg) | {"edge_weight": cfg.MODEL.EDGE_WEIGHT}

    def forward(self, batched_inputs):
        outputs = super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        edges = self.edges(self.backbone(images.tensor)["p2"])
        if self.training:
            return outputs | {"loss_edges": edges.square().mean() * self.edge_weight}
        return [output | {"edges": edge} for output, edge in zip(outputs, edges, strict=True)]


@ROI_MASK_HEAD_REGISTRY.register()
class BoundaryMaskHead(nn.Module):
    """More layers, two predictors and losses, a forward of another signature."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        width, classes = 8, cfg.MODEL.ROI_HEADS.NUM_CLASSES
        self.fuse = nn.Conv2d(input_shape.channels, width, 3, padding=1)
        self.boundary_predictor = nn.Conv2d(width, classes, 1)
        self.deconv = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.mask_predictor = nn.Conv2d(width, classes, 1)

    def forward(self, features, boundary_features, instances):
        x = self.fuse(features).relu()
        logits = self.mask_predictor(self.deconv(x).relu())
        boundary = self.boundary_predictor(x + boundary_features.mean())
        if not self.training:
            mask_rcnn_inference(logits, instances)
            return instances
        return {"loss_mask": mask_rcnn_loss(logits, instances), "loss_boundary": boundary.square().mean()}


@ROI_HEADS_REGISTRY.register()
class BoundaryROIHeads(StandardROIHeads):
    def _forward_mask(self, features, instances):
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        boxes = [image.proposal_boxes if self.training else image.pred_boxes for image in instances]
        pooled = self.mask_pooler([features[name] for name in self.mask_in_features], boxes)
        return self.mask_head(pooled, pooled * 2, instances)


OWN_MASK_HEADS = Registry("OWN_MASK_HEADS")


@OWN_MASK_HEADS.register()
class AttentionMaskHead(nn.Module):
    """In a registry of its own; sees features alone and draws in a layer that no name gives away."""

    def __init__(self, channels, classes):
        super().__init__()
        self.attention = nn.Conv2d(channels, 1, 3, padding=1)
        self.draw = nn.Conv2d(channels, classes, 3, padding=1)

    def forward(self, features):
        return F.interpolate(self.draw(features * self.attention(features).sigmoid()), scale_factor=1.0), features


@ROI_HEADS_REGISTRY.register()
class TupleROIHeads(StandardROIHeads):
    """Takes the mask head from another registry, computes its loss itself and returns more than losses."""

    @classmethod
    def _init_mask_head(cls, cfg, input_shape):
        names = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooler = ROIPooler(14, tuple(1.0 / input_shape[name].stride for name in names), 0, "ROIAlignV2")
        head = OWN_MASK_HEADS.get(cfg.MODEL.ROI_MASK_HEAD.NAME)(CHANNELS, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        return {"mask_in_features": names, "mask_pooler": pooler, "mask_head": head}

    def forward(self, images, features, proposals, targets=None):
        if not self.training:
            return super().forward(images, features, proposals)
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._forward_box(features, proposals)
        of_masks, _ = self._forward_mask(features, proposals)
        return proposals, losses | of_masks

    def _forward_mask(self, features, instances):
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        boxes = [image.proposal_boxes if self.training else image.pred_boxes for image in instances]
        pooled = self.mask_pooler([features[name] for name in self.mask_in_features], boxes)
        logits, pooled = self.mask_head(pooled)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances)}, pooled
        mask_rcnn_inference(logits, instances)
        return instances


class OwnOutputLayers(FastRCNNOutputLayers):
    """A box predictor with a loss of its own."""

    def losses(self, predictions, proposals):
        losses = super().losses(predictions, proposals)
        return losses | {"loss_objectness": predictions[0].square().mean() * 0.01}


@ROI_HEADS_REGISTRY.register()
class OwnCascadeROIHeads(CascadeROIHeads):
    """A cascade that builds its predictors itself, as CenterNet2 does."""

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        ret = super()._init_box_head(cfg, input_shape)
        ret["box_predictors"] = [
            OwnOutputLayers(cfg, head.output_shape, box2box_transform=old.box2box_transform)
            for head, old in zip(ret["box_heads"], ret["box_predictors"], strict=True)
        ]
        return ret


@ROI_MASK_HEAD_REGISTRY.register()
class PointSupervisedMaskHead(BaseMaskRCNNHead):
    """Learns from points; the data has no masks."""

    @configurable
    def __init__(self, channels, classes, **kwargs):
        super().__init__(**kwargs)
        self.predictor = nn.Conv2d(channels, classes, 1)

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"channels": input_shape.channels, "classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES}

    def forward(self, x, instances):
        return {"loss_mask": self.predictor(x).square().mean()}


class QueryCriterion(nn.Module):
    """Matches the first queries to the objects; losses of all layers, as MaskFormer's criterion has them."""

    def __init__(self, weight_dict):
        super().__init__()
        self.weight_dict = weight_dict

    def loss_masks(self, outputs, targets, indices, num_masks):
        pairs = [(image, *pair) for image, pairs in enumerate(indices) for pair in zip(*pairs, strict=True)]
        if not pairs:
            return {"loss_mask": outputs["pred_masks"].sum() * 0}
        drawn = torch.stack([outputs["pred_masks"][image, query] for image, query, _ in pairs])
        truth = torch.stack([targets[image]["masks"][index].float() for image, _, index in pairs])
        drawn = F.interpolate(drawn[:, None], size=truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return {"loss_mask": F.binary_cross_entropy_with_logits(drawn, truth, reduction="sum") / num_masks / 4096}

    def forward(self, outputs, targets):
        indices = [(torch.arange(len(t["labels"])).flip(0), torch.arange(len(t["labels"]))) for t in targets]
        losses = self.loss_masks(outputs, targets, indices, 4)
        for number, layer in enumerate(outputs["aux_outputs"]):
            losses |= {f"{k}_{number}": v for k, v in self.loss_masks(layer, targets, indices, 4).items()}
        return losses


class QueryDecoder(nn.Module):
    def __init__(self, queries, classes):
        super().__init__()
        self.query = nn.Embedding(queries, CHANNELS)
        self.layers = nn.ModuleList([nn.Linear(CHANNELS, CHANNELS) for _ in range(2)])
        self.classify = nn.Linear(CHANNELS, classes)

    def forward(self, levels, mask_features, mask=None):
        x = self.query.weight[None] + levels["p5"].mean(dim=(2, 3))[:, None]
        found = []
        for layer in self.layers:
            x = x + layer(x).tanh()
            masks = torch.einsum("nqc,nchw->nqhw", x, mask_features)
            found.append({"pred_logits": self.classify(x), "pred_masks": masks})
        return found[-1] | {"aux_outputs": found[:-1]}


class PixelDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mask_features = nn.Conv2d(CHANNELS, CHANNELS, 1)


class QueryHead(nn.Module):
    """Weights without its version are taken for those of the first one, which had other names."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version", 1) < 2:
            for name in [name for name in state if name.startswith(prefix)]:
                state[name.replace(prefix, f"{prefix}pixel_decoder.")] = state.pop(name)
        super()._load_from_state_dict(state, prefix, metadata, *rest)

    def __init__(self, classes):
        super().__init__()
        self.common_stride = 4
        self.pixel_decoder = PixelDecoder()
        self.predictor = QueryDecoder(5, classes)

    def forward(self, features):
        return self.predictor(features, self.pixel_decoder.mask_features(features["p2"]), None)


@META_ARCH_REGISTRY.register()
class SmallMaskFormer(nn.Module):
    """Queries, a pixel decoder, and a criterion whose weights decide which losses are kept."""

    @configurable
    def __init__(self, *, backbone, classes):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = QueryHead(classes)
        self.criterion = QueryCriterion({"loss_mask": 5.0, "loss_mask_0": 5.0})

    @classmethod
    def from_config(cls, cfg):
        return {"backbone": build_backbone(cfg), "classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES}

    def forward(self, batched_inputs):
        images = ImageList.from_tensors([item["image"] for item in batched_inputs], 32)
        outputs = self.sem_seg_head(self.backbone(images.tensor))
        if not self.training:
            results = []
            for masks, scores in zip(outputs["pred_masks"], outputs["pred_logits"], strict=True):
                result = Instances(tuple(masks.shape[-2:]))
                result.scores, result.pred_classes = scores.sigmoid().max(1)
                result.pred_masks = masks > 0
                results.append({"instances": result})
            return results
        size = images.tensor.shape[-2:]
        targets = []
        for item in batched_inputs:
            masks = item["instances"].gt_masks.tensor
            padded = F.pad(masks, (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1]))
            targets.append({"labels": item["instances"].gt_classes, "masks": padded})
        losses = self.criterion(outputs, targets)
        weights = self.criterion.weight_dict
        return {name: loss * weights[name] for name, loss in losses.items() if name in weights}


def foreign_cfg(*changes, enabled=True):
    """The config of a project that has never heard of us but for the two lines, and a model of two classes."""
    keys = {key: value for change in changes for key, value in change.items()}
    cfg = get_cfg()
    if "MODEL.POINT_HEAD.FC_DIM" in keys:
        add_pointrend_config(cfg)
    cfg.MODEL.EDGE_WEIGHT = 0.5
    add_gan_config(cfg)
    cfg.merge_from_list([part for item in {**_SMALL, **keys}.items() for part in item])
    cfg.MODEL.GAN.ENABLED = enabled
    return cfg


def shallow_backbone():
    """The backbone of `foreign_cfg`, for a LazyConfig."""
    return build_backbone(foreign_cfg(enabled=False))


_SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_shallow_fpn",
    "MODEL.RESNETS.NORM": "LN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.FPN.OUT_CHANNELS": CHANNELS,
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 50,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "TEST.DETECTIONS_PER_IMAGE": 4,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
    "MODEL.SEM_SEG_HEAD.NORM": "",
    # only to be quick
    "MODEL.GAN.MASK.INPUT_SIZE": 32,
    "MODEL.GAN.MASK.CHANNELS": (8, 8, 8, 8),
    "MODEL.GAN.MASK.NORM": "GN",
    "MODEL.GAN.BOX.CHANNELS": (8, 8),
    "MODEL.GAN.BOX.NORM": "GN",
    "SOLVER.BASE_LR": 0.002,
}
_CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
_BOXES = {"MODEL.GAN.BOX.ENABLED": True}
_FEATURES = {
    "MODEL.GAN.MASK.DISCRIMINATOR": "MaskedFeatureDiscriminator",
    "MODEL.GAN.MASK.OBJECTIVE": "MultiLayerL1",
    "MODEL.GAN.MASK.INPUT_SIZE": 14,
}
KINDS = {
    "plain": [],
    "own meta-architecture": [{"MODEL.META_ARCHITECTURE": "EdgeRCNN"}],
    "own mask head": [{"MODEL.ROI_HEADS.NAME": "BoundaryROIHeads", "MODEL.ROI_MASK_HEAD.NAME": "BoundaryMaskHead"}],
    "own registry and tuples": [
        {"MODEL.ROI_HEADS.NAME": "TupleROIHeads", "MODEL.ROI_MASK_HEAD.NAME": "AttentionMaskHead"}
    ],
    "class-agnostic": [
        {"MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True},
        _BOXES,
    ],
    "cascade": [_CASCADE, _BOXES, _FEATURES],
    "own cascade": [_CASCADE, {"MODEL.ROI_HEADS.NAME": "OwnCascadeROIHeads"}, _BOXES],
    "panoptic": [{"MODEL.META_ARCHITECTURE": "PanopticFPN"}],
    "PointRend": [{**POINT_REND, "MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead"}],
    "queries": [{"MODEL.META_ARCHITECTURE": "SmallMaskFormer"}],
    "queries, features": [{"MODEL.META_ARCHITECTURE": "SmallMaskFormer"}, _FEATURES],
}
# the layer that draws the logits, which nobody has told the plugin
LAYERS = dict.fromkeys(KINDS, "roi_heads.mask_head.predictor") | {
    "own mask head": "roi_heads.mask_head.mask_predictor",
    "own registry and tuples": "roi_heads.mask_head.draw",
    "PointRend": "roi_heads.mask_head.point_head.predictor",
    "queries": "sem_seg_head.pixel_decoder.mask_features",
    "queries, features": "sem_seg_head.pixel_decoder.mask_features",
}
