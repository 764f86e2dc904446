"""Checkpoints now and then, of which a resumed run knows the former ones."""

import glob
import os
import re

from detectron2.engine.hooks import PeriodicCheckpointer


class PeriodicCheckpoint(PeriodicCheckpointer):
    """Detectron2's hook, except that `max_to_keep` counts the checkpoints from before a resume as well."""

    def before_train(self) -> None:
        super().before_train()
        folder = self.checkpointer.save_dir
        files = glob.glob(os.path.join(glob.escape(folder), "model_*.pth"))
        own = sorted(file for file in files if re.fullmatch(r"model_\d{7,}\.pth", os.path.basename(file)))
        self.recent_checkpoints = own if self.trainer.start_iter > 0 else []
