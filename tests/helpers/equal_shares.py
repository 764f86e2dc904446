"""Steps of a model whose losses are plain means over images, so that a batch may be cut anywhere; run by tests."""

import itertools

import torch
from detectron2.engine import create_ddp_model
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_models import make_inputs, tiny_cfg

from gan_plugin.engine.distributed import share_weights
from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.modeling.meta_arch import discriminator_parameters

STEPS = 3


def equal_shares_cfg(mode="joint", norm="GN"):
    """No batch statistics but the discriminators', no random labels, and the same number of RoIs on every image."""
    cfg = tiny_cfg()
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.ROI_HEADS.NAME = "AdversarialROIHeads"
    gan = cfg.MODEL.GAN
    gan.MODE, gan.ORDER, gan.BOX.ENABLED = mode, "paper", True
    gan.MASK.NORM = gan.BOX.NORM = norm
    gan.BOX.CHANNELS = (32, 32)
    gan.LABELS.REAL, gan.LABELS.FAKE, gan.LABELS.FLIP_PROB = (1.0, 1.0), (0.0, 0.0), 0.0
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = "sgd", 0.01
    cfg.SOLVER.DISC.OPTIMIZER, cfg.SOLVER.DISC.BASE_LR = "sgd", 0.01
    return cfg


def take_steps(cfg, batches, accumulate=1, amp=False, seed=0, steps=STEPS):
    """The weights and the last losses after `steps` steps over `batches`, in this process of perhaps several."""
    # Which RoIs are sampled must not depend on how many images a process has.
    torch.randperm = lambda count, *, device=None: torch.arange(count, device=device)
    torch.manual_seed(seed)
    model = build_model(cfg).train()
    stream = itertools.cycle(batches)
    options = {"accumulate": accumulate, "amp": amp}
    if cfg.MODEL.GAN.MODE == "joint":
        optimizer = build_generator_optimizer(cfg, model)
        step = JointStep(
            create_ddp_model(model, broadcast_buffers=False, device_ids=None), stream, optimizer, **options
        )
    else:
        share_weights(model)
        disc = discriminator_parameters(model)
        optimizers = build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)
        step = AlternatingStep(model, stream, *optimizers, cfg.MODEL.GAN.ORDER, **options)
    with EventStorage(0) as storage:
        for step.iter in range(steps):
            step.run_step()
            storage.step()
        losses = {name: value for name, (value, _) in storage.latest().items() if "loss" in name}
    return {name: value.clone() for name, value in model.state_dict().items()}, losses


def save_steps(folder, mode, norm, objects, known=None):
    """In one of several processes: steps on an image of its own; `objects` by rank; leaves (weights, losses).

    `known`, by rank, says whether the objects have masks; None where all have and the config knows of nothing else.
    """
    rank = comm.get_rank()
    images = [make_inputs(1, instances=count, seed=number)[0] for number, count in enumerate(objects)]
    # Other initial weights in every process: they have to be shared.
    cfg = equal_shares_cfg(mode, norm)
    if known is not None:
        cfg.MODEL.GAN.MASK.BOX_ONLY = True
        cfg.MODEL.GAN.UNPAIRED.PROJECTION_WEIGHT = cfg.MODEL.GAN.UNPAIRED.PAIRWISE_WEIGHT = 1.0
        images[rank]["instances"].gt_has_mask = torch.full((objects[rank],), known[rank])
    weights, losses = take_steps(cfg, [[images[rank]]], seed=rank)
    torch.save((weights, losses), folder / f"{rank}.pth")
