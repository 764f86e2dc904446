# .venv/bin/python tools/lazyconfig_train_net.py --num-gpus 1 \
#   --config-file configs/lazy/gan_mask_rcnn_cityscapes.py train.output_dir=output/cityscapes
# (DETECTRON2_DATASETS names the folder that holds cityscapes/)
#
# Value for value configs/gan_mask_rcnn_cityscapes.yaml, the thesis' system but for its weights, held to a share. The
# schedule: 12 epochs of 372 iterations, the learning rate falls every 3, the first is its warm-up and comes before the
# game. Schedules are relative to train.max_iter: another value stretches them.
import torch
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import LinearParamScheduler, MultiStepParamScheduler

from .common.cityscapes import dataloader as dataloader
from .common.train import train
from .models.gan_mask_rcnn_fpn import model

model.mode = "${train.gan.mode}"
model.start_iter = 372
model.roi_heads.num_classes = 8

optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.005
optimizer.weight_decay = 0.0005
optimizer.foreach = True

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01, 0.001],
        milestones=[1116, 2232, 3348],
        num_updates=4464,
    ),
    warmup_length=372 / 4464,
    warmup_method="linear",
    warmup_factor=0.001,
)

disc_optimizer = L(torch.optim.Adam)(
    params=L(get_default_optimizer_params)(),
    lr=0.00002,
    betas=(0.5, 0.999),
    weight_decay=0.0,
)
# Constant; fvcore's ConstantParamScheduler has no value for the end of the run, which Detectron2 asks for.
disc_lr_multiplier = L(LinearParamScheduler)(start_value=1.0, end_value=1.0)

train.output_dir = "output/gan_mask_rcnn_cityscapes_lazy"
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
train.max_iter = 4464
train.checkpointer.period = 372
train.eval_period = 1116
train.best_metric = "segm/AP"
train.gan.mode = "alternating"
train.gan.order = "thesis"
