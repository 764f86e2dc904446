"""Learning rates of both players."""

from detectron2.engine.hooks import LRScheduler


class DiscriminatorLRScheduler(LRScheduler):
    """Steps the discriminator's schedule and records its rate as `lr_disc`.

    A class of its own because TrainerBase saves the state of hooks under their class names.
    """

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("lr_disc", self._optimizer.param_groups[0]["lr"], smoothing_hint=False)
        self.scheduler.step()


class JointLRScheduler(LRScheduler):
    """Detectron2's hook, which also records what the one optimizer's rate means for the discriminator."""

    def __init__(self, disc_lr_factor: float) -> None:
        """
        Args:
            disc_lr_factor: what the discriminator's steps are multiplied by in comparison with the generator's.
        """
        super().__init__()
        self._factor = disc_lr_factor

    def after_step(self) -> None:
        rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr_disc", rate * self._factor, smoothing_hint=False)
        super().after_step()
