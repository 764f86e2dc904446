"""Names by which configs may call Detectron2's heads beside AdversarialRCNN; any head of yours serves as well."""

from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, MaskRCNNConvUpsampleHead, StandardROIHeads


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialMaskHead(MaskRCNNConvUpsampleHead):
    """Detectron2's mask head."""


@ROI_HEADS_REGISTRY.register()
class AdversarialROIHeads(StandardROIHeads):
    """Detectron2's RoI heads."""


@ROI_HEADS_REGISTRY.register()
class AdversarialCascadeROIHeads(CascadeROIHeads):
    """Detectron2's Cascade heads; the box adversary judges the boxes of the last stage, the ones inference uses."""
