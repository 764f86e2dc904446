"""Checkpoints that are whole or absent, and sentences for files that are neither."""

import os
import pickle
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from gan_plugin.errors import UserError
from gan_plugin.files import first_line, write_whole

BEST_PREFIX = "model_best"
_ADVICE = "The checkpoints before it are kept; free some disk space and continue with --resume."


class NonFiniteWeightError(UserError, FloatingPointError):
    """A weight became NaN or infinite; the checkpoints before it are whole."""


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, except that

    - a file appears under its name only when it is complete, and one that cannot be written leaves the last one alone;
    - weights that are not finite are refused, so that the last checkpoint is always a good one;
    - `model_best` does not become the checkpoint that `--resume` continues from;
    - a file that is no checkpoint is refused by name.
    """

    # the config key that names the initial weights, for sentences about them
    weights_key = "MODEL.WEIGHTS"

    def save(self, name: str, **kwargs: Any) -> None:
        """Save model, checkpointables and `kwargs` as `name`.pth.

        Raises:
            UserError: a weight is not finite, or the file cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {
            "model": self.model.state_dict(),
            **{key: obj.state_dict() for key, obj in self.checkpointables.items()},
        }
        data.update(kwargs)
        self._refuse_non_finite(data["model"], name, data.get("iteration"))
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        write_whole(path, lambda file: torch.save(data, file), _ADVICE)
        if not name.startswith(BEST_PREFIX):
            self.tag_last_checkpoint(os.path.basename(path))

    def save_weights(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        """Save `weights` alone as `name`.pth, to be used as MODEL.WEIGHTS; errors as in `save`."""
        self._refuse_non_finite(weights, name)
        path = os.path.join(self.save_dir, f"{name}.pth")
        write_whole(path, lambda file: torch.save({"model": weights}, file), _ADVICE)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make `last_filename_basename` the file that `--resume` continues from."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_whole(path, lambda file: file.write(last_filename_basename.encode()), _ADVICE)

    def _refuse_non_finite(self, weights: dict[str, torch.Tensor], name: str, iteration: int | None = None) -> None:
        when = "" if iteration is None else f" after iteration {iteration}"
        for key, value in weights.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise NonFiniteWeightError(
                    f"{name}.pth was not written because {key} is no longer finite{when}; the checkpoints before it "
                    "are kept. Lower SOLVER.BASE_LR, or switch SOLVER.CLIP_GRADIENTS on, and --resume."
                )

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As DetectionCheckpointer.load.

        Raises:
            UserError: the file is missing, is not a checkpoint, or belongs to another kind of run.
        """
        try:
            return super().load(path, *args, **kwargs)
        except (OSError, AssertionError) as error:
            raise UserError(
                f"The weights {path} cannot be read: {first_line(error)}. Check {self.weights_key}; without a "
                "network, download the file elsewhere and name its path."
            ) from error
        except (pickle.UnpicklingError, EOFError, RuntimeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} is not a checkpoint, or was cut short while it was written ({first_line(error)}); name "
                f"another file in {self.weights_key}, or in OUTPUT_DIR/last_checkpoint when you resume."
            ) from error
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} holds no checkpoint of this kind of model ({type(error).__name__}: {first_line(error)}); "
                f"name the weights of a Detectron2 model in {self.weights_key}."
            ) from error
        finally:
            self._parsed_url_during_load = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            loaded = super()._load_file(filename)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise pickle.UnpicklingError(first_line(error)) from error
        if not isinstance(loaded.get("model"), dict) or not loaded["model"]:
            raise ValueError("it holds no dictionary of weights")
        return loaded

    def _torch_load(self, f: str) -> Any:
        # said here, since PyTorch refuses code by itself from 2.6 on only
        return torch.load(f, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        untouched = {*incompatible.missing_keys, *(shape[0] for shape in incompatible.incorrect_shapes)}
        if untouched.issuperset(name for name, _ in self.model.named_parameters()):
            raise ValueError("not one of its weights belongs to this model")
        return incompatible
