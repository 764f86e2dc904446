"""Any convolutional or hierarchical network of timm under a feature pyramid."""

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError, first_line
from gan_plugin.layers.layout import to_channels_last

from .timm_weights import check_network, import_timm, load_classifier

BUILDER = "build_timm_fpn_backbone"
# the order of colours that all weights of timm are for
_ORDER = "RGB"
_NORMS = (nn.modules.batchnorm._BatchNorm,)
# how a network says that it cannot take a picture of this size
_SIZE_WORDS = ("size", "shape", "match", "height", "width", "divisible")


class TimmBackbone(Backbone):
    """The levels of a timm network, named as ResNet's by their strides: "res2" for 4, "res3" for 8, and so on.

    Pictures come in as Detectron2 has normalised them, and are brought to the mean and deviation of timm's data
    configuration of the network first, so that MODEL.PIXEL_MEAN and PIXEL_STD make no difference.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        freeze_at: int = 2,
        norm: str = "FrozenBN",
        pretrained: str = "",
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        image_format: str = _ORDER,
    ) -> None:
        """
        Args:
            name: timm's, such as "tf_efficientnet_lite0".
            out_indices: which of timm's feature levels to hand on, in ascending order; their strides have to double.
            freeze_at: so many of timm's feature levels, with all that lies before them, are not trained. For a ResNet
                0 freezes nothing, 1 the stem, 2 the stem and the first stage, as MODEL.BACKBONE.FREEZE_AT does.
            norm: "FrozenBN": no BatchNorm is trained, and each uses its stored statistics; "BN": those of the batch.
                Networks without BatchNorm do not look at it.
            pretrained: "" for random weights, or as in `load_classifier`.
            pixel_mean, pixel_std: those that the model has normalised pictures with, in [0, 255], one per channel.
            image_format: the order of the channels.

        Raises:
            UserError: a value is out of range, the weights are not there or of another network, or the channels come
                in another order than the weights know.
        """
        super().__init__()
        check_network(name)
        check_choice("MODEL.TIMM.NORM", norm)
        if pretrained and (image_format != _ORDER or len(pixel_mean) != len(_ORDER)):
            raise UserError(
                f"INPUT.FORMAT is {image_format!r}, but the weights of {name} are for {_ORDER}; set INPUT.FORMAT to "
                f"{_ORDER!r}, or MODEL.TIMM.PRETRAINED to '' to train from random weights."
            )
        self.name = name
        self.body: Any = to_channels_last(_features_only(name, out_indices, pretrained, len(pixel_mean)))
        # Swin and its kin hand out (N, H, W, C)
        self._channels_behind = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        self._set_shapes(out_indices)
        self._set_pixels(pixel_mean, pixel_std, image_format)
        self._freeze(freeze_at, norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.MODEL.TIMM
        return {
            "name": node.NAME,
            "out_indices": node.OUT_INDICES,
            "freeze_at": node.FREEZE_AT,
            "norm": node.NORM,
            # a checkpoint holds the backbone as well
            "pretrained": "" if cfg.MODEL.WEIGHTS else node.PRETRAINED,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "image_format": cfg.INPUT.FORMAT,
        }

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, C, H, W) -> {level: (N, its channels, H / its stride, W / its stride)}.

        Raises:
            UserError: the network cannot take pictures of this size.
        """
        images = images * self.scale + self.offset
        levels = self.body(images) if torch.jit.is_scripting() else self._levels(images)
        if self._channels_behind:
            levels = [level.permute(0, 3, 1, 2) for level in levels]
        # the gradient of a pyramid's 3x3 convolutions takes twice as long in the order that depthwise ones like
        levels = [level.contiguous() for level in levels]
        return dict(zip(self._out_features, levels))  # noqa: B905 - TorchScript knows no strict

    @property
    def size_divisibility(self) -> int:
        """The coarsest level's stride: pictures are padded to a multiple of it."""
        return self._size_divisibility

    def train(self, mode: bool = True) -> "TimmBackbone":
        """As `nn.Module.train`, but frozen BatchNorms keep to their stored statistics."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def _levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        try:
            return self.body(images)
        except (AssertionError, RuntimeError) as error:
            if not any(word in str(error).lower() for word in _SIZE_WORDS):
                raise
            height, width = images.shape[2:]
            raise UserError(
                f"{self.name} cannot take pictures of {width}x{height} pixels ({first_line(error)}); change "
                "INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN, or ..._TEST, or choose another MODEL.TIMM.NAME."
            ) from error

    def _set_shapes(self, out_indices: Sequence[int]) -> None:
        strides = self.body.feature_info.reduction()
        if any(after != 2 * before for before, after in zip(strides[:-1], strides[1:], strict=True)):
            raise UserError(
                f"MODEL.TIMM.OUT_INDICES {tuple(out_indices)} of {self.name} have the strides {tuple(strides)}, but a "
                "feature pyramid needs each twice the one before; choose others, or another network."
            )
        self._out_features = [f"res{stride.bit_length() - 1}" for stride in strides]
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))
        channels = self.body.feature_info.channels()
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        self._size_divisibility = strides[-1]

    def _set_pixels(self, mean: Sequence[float], std: Sequence[float], order: str) -> None:
        wanted = import_timm().get_pretrained_cfg(self.name)
        own_mean, own_std = (torch.tensor(values) * 255 for values in (wanted.mean, wanted.std))
        if len(mean) != len(own_mean):
            own_mean, own_std = own_mean.mean(), own_std.mean()
        scale, offset = torch.tensor(std) / own_std, (torch.tensor(mean) - own_mean) / own_std
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("offset", offset[:, None, None], persistent=False)
        logging.getLogger(__name__).info(
            f"{self.name} gets pictures in the order {order} with mean {wanted.mean} and deviation {wanted.std}, as "
            "timm's data configuration says."
        )

    def _freeze(self, freeze_at: int, norm: str) -> None:
        parameters = dict(self.body.named_parameters())
        levels = [level["module"] for level in self.body.feature_info.info]
        if not 0 <= freeze_at <= len(levels):
            raise UserError(f"MODEL.TIMM.FREEZE_AT is {freeze_at}; set 0 to {len(levels)}, the levels of {self.name}.")
        ends = [_end_of(list(parameters), level) for level in levels]
        begin, end = ends[freeze_at - 1] if freeze_at else 0, ends[self.body.feature_info.out_indices[-1]]
        for index, parameter in enumerate(parameters.values()):
            # what lies behind the last level is not asked for, and would have no gradient
            parameter.requires_grad_(begin <= index < end)
        norms = [layer for layer in self.body.modules() if isinstance(layer, _NORMS)]
        self._frozen_norms = [
            layer for layer in norms if norm == "FrozenBN" or not any(p.requires_grad for p in layer.parameters())
        ]
        for layer in self._frozen_norms:
            layer.requires_grad_(False)
        self.train(self.training)


def _features_only(name: str, out_indices: Sequence[int], pretrained: str, channels: int) -> nn.Module:
    check_choice("MODEL.TIMM.OUT_INDICES", tuple(out_indices))
    options: dict[str, Any] = {"out_indices": tuple(out_indices), "in_chans": channels}
    if pretrained:
        weights = load_classifier(name, pretrained).state_dict()
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": weights}}
    try:
        return _create(name, **options)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"timm cannot build {name} as a backbone with MODEL.TIMM.OUT_INDICES {tuple(out_indices)} "
            f"({type(error).__name__}: {first_line(error)}); choose other levels, or another network."
        ) from error


def _create(name: str, **options: Any) -> nn.Module:
    timm = import_timm()
    create = partial(timm.create_model, name.split(".")[0], features_only=True, **options)
    log = logging.getLogger("timm.models._builder")
    level = log.level
    try:
        # all weights have found their place before; a backbone has none for those of the head
        log.setLevel(logging.ERROR)
        if timm.get_pretrained_cfg(name).fixed_input_size:
            # Swin's windows fit any picture, if one insists
            with suppress(TypeError):
                return create(strict_img_size=False)
        return create()
    finally:
        log.setLevel(level)


def _end_of(parameters: list[str], level: str) -> int:
    """One past the last parameter of a level; timm writes a dot of its name as an underscore where it flattens."""
    inside = re.compile(rf"(^|\.){re.escape(level).replace(re.escape('.'), '[._]')}\.")
    return max((index + 1 for index, name in enumerate(parameters) if inside.search(name)), default=0)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The network that MODEL.TIMM describes under an FPN with a level more on top, as `build_resnet_fpn_backbone` has.

    MODEL.FPN is read as there; without IN_FEATURES all levels go in.

    Raises:
        UserError: a key of MODEL.TIMM is wrong, or MODEL.FPN.IN_FEATURES names a level that is not there.
    """
    bottom_up = TimmBackbone(cfg, input_shape)
    levels = list(cfg.MODEL.FPN.IN_FEATURES) or list(bottom_up.output_shape())
    if unknown := [level for level in levels if level not in bottom_up.output_shape()]:
        raise UserError(
            f"MODEL.FPN.IN_FEATURES has {unknown[0]!r}, but MODEL.TIMM.OUT_INDICES give "
            f"{', '.join(bottom_up.output_shape())}; leave it empty for all of them."
        )
    top = LastLevelMaxPool()
    # where the last level's stride is not 32
    top.in_feature = levels[-1].replace("res", "p")
    return FPN(
        bottom_up=bottom_up,
        in_features=levels,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
