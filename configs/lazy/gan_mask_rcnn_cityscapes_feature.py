# .venv/bin/python tools/lazyconfig_train_net.py --num-gpus 1 \
#   --config-file configs/lazy/gan_mask_rcnn_cityscapes_feature.py train.output_dir=output/cityscapes_feature
# (DETECTRON2_DATASETS names the folder that holds cityscapes/)
#
# Value for value configs/gan_mask_rcnn_cityscapes_feature.yaml: the discriminators of Le et al. 2020
# (arXiv 2010.13757), each held to a share: one of mask x RoI features, one of the features inside of the boxes.
import copy

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from gan_plugin.layers.prroi_pool import MultiLevelPrRoIPool
from gan_plugin.modeling import Adversary, MaskAdversary
from gan_plugin.modeling.adversary import adversaries
from gan_plugin.modeling.discriminators import BoxFeatureDiscriminator, MaskedFeatureDiscriminator
from gan_plugin.modeling.objectives import MultiLayerL1, NonSaturatingBCE
from gan_plugin.modeling.presenters import BoxFeatures, MaskedFeatures
from gan_plugin.modeling.stability import GradientShare, LabelNoise

from .gan_mask_rcnn_cityscapes import dataloader as dataloader
from .gan_mask_rcnn_cityscapes import lr_multiplier, model, optimizer, train

_scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)

model.sampler.matching = "proposal"
model.sampler.side = 28
model.adversaries = L(adversaries)(
    mask=L(MaskAdversary)(
        weight=0.5,
        rec_weight=0.0,
        balance=L(GradientShare)(share=0.1, max_factor=10000.0),
        objective=L(MultiLayerL1)(),
        discriminator=L(MaskedFeatureDiscriminator)(
            in_channels=256, input_size=28, channels=(64, 128, 256, 512, 1024), norm="BN", judges="features"
        ),
        presenter=L(MaskedFeatures)(
            size=28, pooler=L(MultiLevelPrRoIPool)(output_size=28, scales=_scales, assignment="level"), fake="soft"
        ),
    ),
    box=L(Adversary)(
        name="box",
        weight=0.025,
        balance=L(GradientShare)(share=0.1, max_factor=10000.0),
        objective=L(NonSaturatingBCE)(),
        discriminator=L(BoxFeatureDiscriminator)(
            in_channels=256, input_size=7, channels=(64, 128, 256, 512), norm="BN", judges="logits"
        ),
        presenter=L(BoxFeatures)(pooler=L(MultiLevelPrRoIPool)(output_size=7, scales=_scales, assignment="level")),
        labels=L(LabelNoise)(real=(1.0, 1.0), fake=(0.0, 0.0), flip_prob=0.0),
    ),
)

optimizer.lr = 0.01
optimizer.weight_decay = 0.0001
disc_optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(),
    lr=0.002,  # a fifth of the generator's
    momentum=0.9,
    weight_decay=0.0001,
)
disc_lr_multiplier = copy.deepcopy(lr_multiplier)

train.output_dir = "output/gan_mask_rcnn_cityscapes_feature_lazy"
train.gan.order = "paper"
