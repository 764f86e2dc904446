# Mask R-CNN R50-FPN with the thesis' mask discriminator: Detectron2's model, made adversarial by one call.
# The thesis' weights are kept in their ratio only; balance=null makes them absolute.
# model.adversaries=null, with train.gan.mode=joint, is the plain Mask R-CNN.
from detectron2.model_zoo import get_config

from gan_plugin import make_adversarial

model = make_adversarial(get_config("common/models/mask_rcnn_fpn.py").model)
model.backbone.bottom_up.freeze_at = 2
# One prediction to one truth, by score and IoU (thesis 5.6.1).
model.sampler.matching = "greedy"
model.adversaries.mask.weight = 1.0
model.adversaries.mask.rec_weight = 100.0
model.sample_period = 500
