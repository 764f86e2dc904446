"""A project that already trains with Detectron2 needs two lines and one config key: README's, as they are printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import SMALLEST_MODEL

from gan_plugin.engine.export import stock_config

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup
cfg = get_cfg()
{lines}
cfg.merge_from_file("project.yaml")
default_setup(cfg, default_argument_parser().parse_args())
trainer = DefaultTrainer(cfg)
trainer.resume_or_load(resume=False)
trainer.train()
"""


@pytest.fixture(scope="module")
def printed():
    """The two lines and the key, from README."""
    section = (ROOT / "README.md").read_text().split("## In a project you already have")[1].split("\n## ")[0]
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (key,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert len(lines.splitlines()) == 2 and key.count(":") == 3, "two lines and one key"
    return lines, key


def test_two_lines_and_one_key_with_the_stock_trainer(printed, run_cfg, pedestrians, tmp_path):
    """Run outside the repository, in the joint mode, with every default."""
    lines, key = printed
    run_cfg.merge_from_list([part for key in SMALLEST_MODEL.items() for part in key])
    run_cfg.OUTPUT_DIR = "out"
    run_cfg.DATALOADER.NUM_WORKERS = 0
    run_cfg.SOLVER.IMS_PER_BATCH, run_cfg.SOLVER.MAX_ITER = 1, 2
    # the discriminator is of full size, so let it see a few masks only
    run_cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    project = tmp_path / "project"
    (project / "out").mkdir(parents=True)
    (project / "base.yaml").write_text(run_cfg.dump())
    # as a project writes it that has never heard of us
    (project / "base.yaml").write_text(plain := stock_config(project / "base.yaml").dump())
    assert "GAN" not in plain and "Adversarial" not in plain
    (project / "project.yaml").write_text("_BASE_: base.yaml\n" + key)
    (project / "train.py").write_text(SCRIPT.format(lines=lines))
    environment = {**os.environ, "DETECTRON2_DATASETS": str(pedestrians)}
    done = subprocess.run([sys.executable, "train.py"], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((project / "out/metrics.json").read_text().splitlines()[-1])
    assert metrics["loss_adv_mask"] > 0 and metrics["loss_disc_mask"] > 0 and metrics["loss_mask"] > 0
