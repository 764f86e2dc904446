"""Small runs of COIGAN's trainer on samples in the form of the loader's, drawn from the global random state."""

from pathlib import Path

import torch
from coigan.config import load_config
from coigan.data.samples import TrainingData
from coigan.engine.training import build_loop
from detectron2.utils import comm

CLASSES = ("scratch", "hole")
SIZE = 16
SMALL = [
    *("DEVICE", "cpu", "INPUT.SIZE", str(SIZE), "MODEL.GENERATOR.WIDTH", "4", "MODEL.GENERATOR.DOWNS", "2"),
    *("MODEL.GENERATOR.BLOCKS", "1", "MODEL.DISCRIMINATOR.WIDTH", "4", "MODEL.REF_DISCRIMINATOR.WIDTH", "4"),
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.NUM_WORKERS", "0", "SOLVER.WRITE_PERIOD", "1"),
    *("LOSS.FEATURES.NETWORK", "random"),
]


def draw(number: int) -> dict[str, torch.Tensor]:
    """Grey noise; the defects are brighter."""
    base = 0.3 + 0.2 * torch.rand(3, SIZE, SIZE)
    masks = torch.zeros(len(CLASSES), SIZE, SIZE)
    for mask in masks:
        y, x = torch.randint(0, SIZE - 5, (2,)).tolist()
        mask[y : y + 5, x : x + 5] = 1
    defects = torch.cat([mask * (0.7 + 0.1 * torch.rand(3, SIZE, SIZE)) for mask in masks])
    noisy = masks * (0.5 + 0.08 * torch.randn(masks.shape))
    return {
        "base": base,
        "ref": 0.3 + 0.4 * torch.rand(3, SIZE, SIZE),
        "gen_input": torch.cat([base, noisy]),
        "disc_input": defects,
        "orig_gen_input_masks": masks,
    }


def run(folder, *options, data=None, resume=False):
    """Train in `folder` with KEY VALUE `options`; returns the loop."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    cfg = load_config("", [*SMALL, "OUTPUT_DIR", str(folder), "INPUT.CLASSES", str(CLASSES), *options])
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    loop = build_loop(cfg, data or TrainingData(CLASSES, draw))
    loop.resume_or_load(resume=resume)
    loop.train()
    return loop


def train_and_save(folder):
    """In one of several processes: three iterations; leaves this process' weights as rank<number>.pth."""
    loop = run(folder, "SOLVER.MAX_ITER", "3")
    torch.save(loop.game.state_dict(), Path(folder) / f"rank{comm.get_rank()}.pth")
