# Mask R-CNN R50-FPN with the thesis' mask discriminator: Detectron2's model, three names changed, one argument added.
# The thesis' weights are kept in their ratio only; balance=null makes them absolute.
# model.adversaries=null, with train.gan.mode=joint and model.roi_heads.mask_head.sampler=null, is the plain Mask R-CNN.
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from gan_plugin.modeling import AdversarialMaskHead, AdversarialRCNN, MaskAdversary, PixelMaskDiscriminator
from gan_plugin.modeling.adversary import adversaries
from gan_plugin.modeling.augment import DiscriminatorAugment
from gan_plugin.modeling.balance import GradientShare
from gan_plugin.modeling.labels import LabelNoise
from gan_plugin.modeling.losses import NonSaturatingBCE
from gan_plugin.modeling.mask_sampling import MaskSampler
from gan_plugin.modeling.presenters import PixelMasks
from gan_plugin.modeling.regularizers import Regularizer

model = get_config("common/models/mask_rcnn_fpn.py").model
model._target_ = AdversarialRCNN
model.backbone.bottom_up.freeze_at = 2
model.roi_heads.mask_head._target_ = AdversarialMaskHead
# One prediction to one truth, by score and IoU (thesis 5.6.1).
model.roi_heads.mask_head.sampler = L(MaskSampler)(real="binary", matching="greedy", match_iou=0.5)

model.adversaries = L(adversaries)(
    mask=L(MaskAdversary)(
        weight=1.0,
        rec_weight=100.0,
        balance=L(GradientShare)(share=0.1, max_factor=10000.0),
        objective=L(NonSaturatingBCE)(),
        discriminator=L(PixelMaskDiscriminator)(
            input_size=128,
            channels=(64, 128, 128, 256, 512, 1024),
            norm="BN",
            spectral=False,
            judges="logits",
        ),
        presenter=L(PixelMasks)(size="${..discriminator.input_size}", fake="soft"),
        labels=L(LabelNoise)(real=(0.7, 1.2), fake=(0.0, 0.3), flip_prob=0.05),
        augment=L(DiscriminatorAugment)(policy="", noise=0.0, background=-1.0),
        regularizer=L(Regularizer)(r1_gamma=0.0, gp_weight=0.0, every=16),
    ),
)
# The game begins at start_iter and reaches full weight warmup_iters later; sample_period is that of the pictures.
model.mode = "joint"
model.start_iter = 0
model.warmup_iters = 0
model.disc_lr_factor = 1.0
model.sample_period = 500
