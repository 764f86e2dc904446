"""Checkpoints that are whole or absent, and sentences for files that are neither."""

import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from detectron2.checkpoint import DetectionCheckpointer

from gan_plugin.errors import UserError, first_line
from gan_plugin.files import UNREADABLE, read_safely, write_whole

SUFFIX = ".pth"
# what a run calls its checkpoints, as `SafeCheckpointer.save` takes it: the last, its moving average, the best
FINAL, AVERAGE, BEST = "model_final", "model_final_ema", "model_best"
# the file that names the checkpoint from which a resumed run goes on
LAST = "last_checkpoint"
# those in between, by the finished iterations
_PERIODIC = re.compile(rf"model_(\d{{7,}}){re.escape(SUFFIX)}")
# the key under which a checkpoint, or the metadata of a .safetensors, keeps the names of the classes
_CLASSES = "thing_classes"
_ADVICE = "The checkpoints before it are kept; free some disk space and continue with --resume."


def checkpoint_file(folder: str | Path, name: str) -> Path:
    """The file that a run in `folder` keeps its checkpoint `name` in."""
    return Path(folder, f"{name}{SUFFIX}")


def best_name(label: str = "") -> str:
    """What the best checkpoint by one of several scores is called, such as `model_best_fid`."""
    return f"{BEST}_{label}" if label else BEST


def is_best(name: str) -> bool:
    """Whether a checkpoint, or its file, is the best by some score, which no run goes on from."""
    return name.startswith(BEST)


def periodic_checkpoints(folder: str | Path) -> dict[int, Path]:
    """{number: file} of the checkpoints from within a run, oldest first; the number is what their names say."""
    found = ((_PERIODIC.fullmatch(file.name), file) for file in sorted(Path(folder).glob(f"*{SUFFIX}")))
    return dict(sorted((int(match[1]), file) for match, file in found if match))


def trained_classes(weights: str) -> list[str]:
    """The names of the classes, in their order, that a run or an exported model was trained on; [] if nobody says.

    Args:
        weights: a file, or anything else that MODEL.WEIGHTS may be.
    """
    if not weights.endswith((".pth", ".safetensors")) or not os.path.isfile(weights):
        return []
    try:
        if weights.endswith(".pth"):
            return classes_in(torch.load(weights, map_location="cpu", weights_only=True, mmap=True))
        with safetensors.safe_open(weights, "pt") as file:
            metadata = file.metadata() or {}
        return classes_in({_CLASSES: json.loads(metadata.get(_CLASSES, "[]"))})
    except (OSError, safetensors.SafetensorError, *UNREADABLE):
        # who loads the model has a sentence for it
        return []


def classes_in(checkpoint: Any) -> list[str]:
    """The names of the classes in the content of a checkpoint; [] if it does not say."""
    names = checkpoint.get(_CLASSES) if isinstance(checkpoint, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def named_classes(classes: Sequence[str]) -> dict[str, list[str]]:
    """What a checkpoint holds for `trained_classes` to find; nothing where there are no names."""
    return {_CLASSES: list(classes)} if classes else {}


def classes_as_text(classes: Sequence[str]) -> dict[str, str]:
    """The same as the metadata of a .safetensors."""
    return {name: json.dumps(value) for name, value in named_classes(classes).items()}


def with_versions(chosen: dict[str, torch.Tensor], of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`chosen` as a state dictionary of PyTorch that also knows the modules' versions which the one `of` a model knows.

    A module may take weights without a version for those of its first one and rename them, as Mask2Former's head does.
    """
    state: Any = OrderedDict(chosen)
    state._metadata = OrderedDict(getattr(of, "_metadata", {}))
    return state


class NonFiniteWeightError(UserError, FloatingPointError):
    """A weight became NaN or infinite; the checkpoints before it are whole."""


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, except that

    - a file appears under its name only when it is complete, and one that cannot be written leaves the last one alone;
    - weights that are not finite are refused, so that the last checkpoint is always a good one;
    - `model_best` does not become the checkpoint that `--resume` continues from;
    - a file that is no checkpoint is refused by name;
    - the names of the classes are kept beside the weights, see `trained_classes`.

    Attributes:
        thing_classes: those names, in their order.
    """

    # the config key that names the initial weights, for sentences about them
    weights_key = "MODEL.WEIGHTS"
    thing_classes: Sequence[str] = ()
    _resumes = False

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
            **named_classes(self.thing_classes),
        }
        data.update(kwargs)
        self._refuse_non_finite(data["model"], name, data.get("iteration"))
        path = checkpoint_file(self.save_dir, name)
        self.logger.info(f"Saving checkpoint to {path}")
        write_whole(path, lambda file: torch.save(data, file), _ADVICE)
        if not is_best(name):
            self.tag_last_checkpoint(path.name)

    def save_weights(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        """Save `weights` alone as `name`.pth, to be used as MODEL.WEIGHTS; errors as in `save`."""
        self._refuse_non_finite(weights, name)
        path = checkpoint_file(self.save_dir, name)
        data = {"model": weights, **named_classes(self.thing_classes)}
        write_whole(path, lambda file: torch.save(data, file), _ADVICE)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make `last_filename_basename` the file that `--resume` continues from."""
        write_whole(os.path.join(self.save_dir, LAST), last_filename_basename, _ADVICE)

    def _refuse_non_finite(self, weights: dict[str, torch.Tensor], name: str, iteration: int | None = None) -> None:
        when = "" if iteration is None else f" after iteration {iteration}"
        for key, value in weights.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise NonFiniteWeightError(
                    f"{name}.pth was not written because {key} is no longer finite{when}; the checkpoints before it "
                    "are kept. Lower SOLVER.BASE_LR, or switch SOLVER.CLIP_GRADIENTS on, and --resume."
                )

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """As DetectionCheckpointer.load; with all checkpointables, that is to resume, every weight has to fit.

        Raises:
            UserError: the file is missing, is not a checkpoint, or belongs to another kind of run.
        """
        self._resumes = checkpointables is None and bool(self.checkpointables)
        try:
            return super().load(path, checkpointables)
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
        missing = [key for key in self.checkpointables if key not in loaded] if self._resumes else []
        if missing:
            raise UserError(
                f"{filename} holds weights alone, so no run can be resumed from it; name a model_*.pth of the run in "
                f"last_checkpoint, or begin another run with it as {self.weights_key}."
            )
        return loaded

    def _torch_load(self, f: str) -> Any:
        advice = f"name another file in {self.weights_key}, or in OUTPUT_DIR/last_checkpoint when you resume"
        return read_safely(f, advice=advice)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        untouched = {*incompatible.missing_keys, *(shape[0] for shape in incompatible.incorrect_shapes)}
        if self._resumes and (untouched or incompatible.unexpected_keys):
            self._refuse_misfit(incompatible)
        if untouched.issuperset(name for name, _ in self.model.named_parameters()):
            raise ValueError("not one of its weights belongs to this model")
        return incompatible

    def _refuse_misfit(self, incompatible: Any) -> None:
        words = [
            *(f"{name} is {was} there and {now} here" for name, was, now in incompatible.incorrect_shapes),
            *(f"{name} is not there" for name in incompatible.missing_keys),
            *(f"{name} is not here" for name in incompatible.unexpected_keys),
        ]
        more = f", and {len(words) - 2} more" if len(words) > 2 else ""
        raise UserError(
            f"The checkpoint in {self.save_dir} does not fit the model of this config: {'; '.join(words[:2])}{more}. "
            f"Resume it with the config it was begun with, or begin another run with its weights as {self.weights_key}."
        )
