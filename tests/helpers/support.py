"""What several tests do: make a config, run the trainer, read its files, compare, script its evaluation, and share."""

from pathlib import Path

import torch
import torch.multiprocessing
from detectron2.config import get_cfg
from detectron2.utils import comm

from gan_plugin import AdversarialTrainer, add_gan_config
from gan_plugin.errors import run_command_line

# keys that leave a Mask R-CNN of 0.2 million parameters that stock Detectron2 knows
SMALLEST_MODEL = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.TIMM.PRETRAINED": "",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
}


def exit_code(main, *arguments):
    """What a tool's `main` answers to a command line, also to one that its parser refuses."""
    try:
        return run_command_line(lambda: main([str(argument) for argument in arguments]))
    except SystemExit as end:
        return end.code


def plugin_cfg():
    """Detectron2's defaults and ours."""
    cfg = get_cfg()
    add_gan_config(cfg)
    return cfg


def train(cfg, resume=False):
    """Build a trainer from a fixed random state and run it to its end."""
    torch.manual_seed(0)
    trainer = AdversarialTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def load(cfg, name="model_final.pth"):
    """A checkpoint of the run."""
    return torch.load(Path(cfg.OUTPUT_DIR) / name, weights_only=True)


def assert_same(a, b, path=""):
    """Equal in every nested value, tensors bit for bit."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def scripted(monkeypatch, scores):
    """Make evaluation return the given segm/AP one after another; for the average, 10 more."""
    scores, last = list(scores), []

    def test(cls, cfg, model, evaluators=None):
        if cfg.OUTPUT_DIR.endswith("ema"):
            return {"segm": {"AP": last[0] + 10}}
        last[:] = [scores.pop(0)]
        return {"segm": {"AP": last[0]}}

    monkeypatch.setattr(AdversarialTrainer, "test", classmethod(test))


def in_two_processes(work, folder, *arguments):
    """Call `work(folder, *arguments)`, a function of a module, in two gloo processes that know of each other.

    A fork, since two interpreters that import everything anew take longer than all the rest; with a GPU no fork can
    go backward.
    """
    method = "spawn" if torch.cuda.is_available() else "fork"
    torch.multiprocessing.start_processes(_one_of_two, (work, folder, arguments), nprocs=2, start_method=method)


def _one_of_two(rank, work, folder, arguments):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    work(folder, *arguments)
    torch.distributed.destroy_process_group()
