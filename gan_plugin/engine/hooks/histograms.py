"""How weights and their last gradients are spread, for TensorBoard."""

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm


class Histograms(HookBase):
    """Puts a histogram of each weight of more than one dimension, and of its last gradient, into the event storage."""

    def __init__(self, period: int) -> None:
        """
        Args:
            period: iterations between histograms, 0 for none.
        """
        self._period = period

    @torch.no_grad()
    def after_step(self) -> None:
        # without a writer, as in the other processes, they would pile up
        if self._period < 1 or (self.trainer.iter + 1) % self._period or not comm.is_main_process():
            return
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.dim() < 2:
                continue
            self.trainer.storage.put_histogram(f"weights/{name}", parameter.detach().float().cpu())
            if parameter.grad is not None:
                self.trainer.storage.put_histogram(f"gradients/{name}", parameter.grad.detach().float().cpu())
