"""Do painted defects help a detector? The same Mask R-CNN on real tiles alone, and with synthetic ones besides."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from coigan.data.split import check_apart
from gan_plugin.comparison.arms import BASELINE
from gan_plugin.comparison.plan import MODEL_A, Plan
from gan_plugin.comparison.report import Story
from gan_plugin.comparison.training_sets import check_classes, plan_words, training_sets_plan
from gan_plugin.errors import UserError

_DIGITS = 8


@dataclass(frozen=True)
class TileSet:
    """A COCO JSON of prepare or augment.

    Attributes:
        path: of the JSON.
        images: folder of its pictures.
        content: of the JSON.
        digest: the begin of its SHA-256; results of a set that was written anew are not mixed with former ones.
    """

    path: Path
    images: Path
    content: Mapping[str, Any]
    digest: str

    @property
    def synthetic(self) -> int:
        """How many images are synthetic."""
        return sum(bool(image.get("synthetic")) for image in self.content["images"])

    def __len__(self) -> int:
        return len(self.content["images"])

    def pictures(self) -> set[Path]:
        """The files."""
        return {(self.images / image["file_name"]).resolve() for image in self.content["images"]}


def read_tile_set(path: str | Path) -> TileSet:
    """The set in a COCO JSON; its pictures lie beside the JSON or in `images` there.

    Raises:
        UserError: the file is missing or no COCO JSON, or it has no pictures.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        content = json.loads(text)
        first = content["images"][0]["file_name"]
        [(entry["id"], entry["name"]) for entry in content["categories"]], content["annotations"]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a COCO JSON.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is no COCO JSON with images ({type(error).__name__}: {error}).") from error
    folders = [folder for folder in (path.parent, path.parent / "images") if (folder / first).is_file()]
    if not folders:
        raise UserError(f"{path} names the image {first}, which is neither in {path.parent} nor in its images folder.")
    return TileSet(path, folders[0], content, hashlib.sha256(text).hexdigest()[:_DIGITS])


@dataclass(frozen=True)
class Sets:
    """What is compared: real tiles to train on and others to test on, and an arm for each synthetic set."""

    train: TileSet
    test: TileSet
    extras: Mapping[str, TileSet]

    def check(self) -> None:
        """Raise a UserError if the comparison would be unfair or the sets do not fit each other."""
        for tiles in (self.train, self.test):
            if tiles.synthetic:
                raise UserError(f"{tiles.path} holds synthetic images; name the JSON of real tiles that prepare wrote.")
        for name, tiles in self.extras.items():
            if name in (BASELINE, MODEL_A) or not name.isidentifier():
                raise UserError(f"An arm cannot be called {name!r}; give --extra another NAME, such as gan.")
            if tiles.synthetic != len(tiles):
                raise UserError(
                    f"{tiles.path} has {len(tiles) - tiles.synthetic} images that are not marked as synthetic; write "
                    "it by inpaint.py augment without --with-real, since --train is added to every arm."
                )
        check_apart(self.train.pictures(), self.test.pictures())
        if any(t.content["categories"] != self.train.content["categories"] for t in (self.test, *self.extras.values())):
            raise UserError("The sets have different categories; make them from one prepared data set.")


def make_ab_plan(
    cfg: CfgNode, sets: Sets, *, config_file: str, seeds: Sequence[int], iterations: tuple[int, int]
) -> Plan:
    """Plan the comparison: model A on the real tiles, then from its weights on these alone and with each synthetic set.

    Args:
        cfg: of a Mask R-CNN; its data sets do not matter, the number of its classes does.
        sets: checked for what would make the comparison unfair.
        config_file: where `cfg` came from, for the report.
        seeds: one model A for each.
        iterations: of model A and of each arm.

    Raises:
        UserError: a set or a number is not usable.
    """
    sets.check()
    check_classes(cfg, len(sets.train.content["categories"]), "tiles")
    named = {name: (f"ab_{name}_{tiles.digest}", tiles) for name, tiles in _all(sets).items()}
    real, test = named[BASELINE][0], named["test"][0]
    arms = {name: [real] if name == BASELINE else [real, named[name][0]] for name in (BASELINE, *sets.extras)}
    return training_sets_plan(
        cfg,
        {name: (tiles.path, tiles.images) for name, tiles in named.values()},
        arms=arms,
        test=test,
        sizes={real: len(sets.train), test: len(sets.test)},
        config_file=config_file,
        seeds=seeds,
        iterations=iterations,
    )


def _all(sets: Sets) -> dict[str, TileSet]:
    return {BASELINE: sets.train, **sets.extras, "test": sets.test}


def ab_story(plan: Plan, sets: Sets) -> Story:
    """The words of the report."""
    extras = [f"{name}={tiles.path}" for name, tiles in sets.extras.items()]
    words = ["--train", str(sets.train.path), "--test", str(sets.test.path), "--extra", *extras, *plan_words(plan)]
    return Story(
        question="Do painted defects help?",
        introduction=(
            f"A Mask R-CNN was first trained on {len(sets.train)} real, annotated tiles: model A. From its weights "
            "each arm below was trained on: the baseline with the same tiles alone, the others with synthetic tiles "
            "besides, defect-free pictures into which defects were put at known places. All arms of a seed had the "
            f"same number of iterations and the same batch size; all were evaluated on {len(sets.test)} other real "
            "tiles. AP is the average precision over all classes, in percent."
        ),
        training_heading="How the training went",
        training="The sum of the model's losses while it was trained; lower is better on its own training tiles.",
        descriptions={arm: _description(arm, sets) for arm in plan.arms},
        command=f"python projects/COIGAN/inpaint.py ab {shlex.join(words)} --output DIR",
        adversarial=False,
    )


def _description(arm: str, sets: Sets) -> str:
    if arm not in sets.extras:
        return "the real tiles alone" if arm == BASELINE else ""
    method = sets.extras[arm].content.get("info", {}).get("method", "")
    return f"the real tiles and {len(sets.extras[arm])} synthetic ones{f' by {method}' if method else ''}"
