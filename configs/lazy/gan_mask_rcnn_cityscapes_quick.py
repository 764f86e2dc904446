# .venv/bin/python tools/make_toy_cityscapes.py datasets --train 120 --val 20
# DETECTRON2_DATASETS=datasets .venv/bin/python tools/lazyconfig_train_net.py \
#   --config-file configs/lazy/gan_mask_rcnn_cityscapes_quick.py train.output_dir=output/quick_lazy
#
# A few minutes on 2 CPU cores, for the toy set at 512x256; value for value
# configs/quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml, whose base says why it is shrunk as it is.
import torch
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from gan_plugin.engine.optimizers import clipping
from gan_plugin.modeling import TimmBackbone

from .gan_mask_rcnn_cityscapes import dataloader, disc_optimizer, model, optimizer, train
from .gan_mask_rcnn_cityscapes import disc_lr_multiplier as disc_lr_multiplier

model.backbone.bottom_up = L(TimmBackbone)(
    name="tf_efficientnet_lite0",
    out_indices=(1, 2, 3, 4),
    freeze_at=2,
    norm="FrozenBN",
    pretrained="wheel",
    pixel_mean="${...pixel_mean}",
    pixel_std="${...pixel_std}",
    image_format="${...input_format}",
)
model.backbone.in_features = ["res2", "res3", "res4", "res5"]
model.backbone.out_channels = 48
model.input_format = dataloader.train.mapper.image_format = "RGB"

rpn = model.proposal_generator
rpn.head.in_channels = 48
rpn.anchor_generator.sizes = [[10], [20], [40], [80], [160]]
rpn.batch_size_per_image = 64
rpn.pre_nms_topk = (200, 200)
rpn.post_nms_topk = (100, 100)

heads = model.roi_heads
heads.batch_size_per_image = 64
heads.box_head.input_shape.channels = 48
heads.box_head.fc_dims = [256, 256]
heads.box_predictor.input_shape.channels = 256
heads.mask_head.input_shape.channels = 48
heads.mask_head.conv_dims = [64, 64, 64, 64]
del rpn, heads

mask = model.adversaries.mask
mask.discriminator.input_size = 32
mask.discriminator.channels = (16, 32, 64, 64)
mask.discriminator.norm = "GN"
model.sampler.side = 32
mask.presenter.fake = "straight_through"
del mask
model.start_iter = 250
model.warmup_iters = 50
model.sample_period = 100

dataloader.train.total_batch_size = 2
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.train.mapper.augmentations[0].short_edge_length = (144, 168, 192)
dataloader.train.mapper.augmentations[0].max_size = 384
dataloader.test.mapper.augmentations[0].short_edge_length = 192
dataloader.test.mapper.augmentations[0].max_size = 384

optimizer = L(L(clipping)(optimizer=torch.optim.AdamW, clip_value=1.0, clip_type="norm"))(
    params=optimizer.params,
    lr=0.001,
    weight_decay=0.05,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1, end_value=0.0),
    warmup_length=30 / 600,
    warmup_method="linear",
    warmup_factor=0.001,
)
disc_optimizer.lr = 0.0002

train.output_dir = "output/gan_mask_rcnn_cityscapes_quick_lazy"
train.init_checkpoint = ""
train.seed = 7
train.device = "cpu"
train.max_iter = 600
train.checkpointer.period = 300
train.eval_period = 0
train.best_metric = ""
