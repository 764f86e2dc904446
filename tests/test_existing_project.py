"""A project that already trains with Detectron2 needs two lines and three config keys."""

import json
import os
import subprocess
import sys

from support import SMALLEST_MODEL

SCRIPT = """
import gan_plugin
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup
cfg = get_cfg()
gan_plugin.add_gan_config(cfg)
cfg.merge_from_file("project.yaml")
default_setup(cfg, default_argument_parser().parse_args())
trainer = DefaultTrainer(cfg)
trainer.resume_or_load(resume=False)
trainer.train()
"""


def test_ten_lines_with_the_stock_trainer(run_cfg, pedestrians, tmp_path):
    """The two lines are `import gan_plugin` and `add_gan_config`; run outside the repository, in joint mode."""
    assert len(SCRIPT.strip().splitlines()) == 10
    run_cfg.merge_from_list([part for key in SMALLEST_MODEL.items() for part in key])
    run_cfg.OUTPUT_DIR = "out"
    run_cfg.DATALOADER.NUM_WORKERS = 0
    project = tmp_path / "project"
    (project / "out").mkdir(parents=True)
    (project / "project.yaml").write_text(run_cfg.dump())
    (project / "train.py").write_text(SCRIPT)
    environment = {**os.environ, "DETECTRON2_DATASETS": str(pedestrians)}
    done = subprocess.run([sys.executable, "train.py"], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((project / "out/metrics.json").read_text().splitlines()[-1])
    assert metrics["loss_adv_mask"] > 0 and metrics["loss_disc_mask"] > 0 and metrics["loss_mask"] > 0
