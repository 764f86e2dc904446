"""The official Cityscapes instance AP, by class, over the images that were evaluated."""

import copy
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.evaluation import CityscapesInstanceEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from gan_plugin.errors import UserError
from gan_plugin.evaluation.instance_ids import label_id, read_instance_ids


class CityscapesInstanceMetrics(CityscapesInstanceEvaluator):
    """Cityscapes instance AP computed by cityscapesScripts, reported by class and without needing the whole split.

    It differs from Detectron2's evaluator in three ways. The truth is that of the images that were processed, not of
    every image under `gt_dir`, so a subset can be evaluated. The result has one entry for each class. It is filed
    under "cityscapes" rather than "segm", a name that COCOEvaluator uses too.

    The data set needs the metadata `thing_classes` (Cityscapes' names) and `gt_dir` (gtFine/<split>).
    """

    def reset(self) -> None:
        super().reset()
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._unknown: UserError | None = None

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        found = [output.get("instances") for output in outputs]
        try:
            for index in {i for instances in found if instances is not None for i in instances.pred_classes.tolist()}:
                label_id(self._metadata.thing_classes, index)
        except UserError as error:
            # kept until `evaluate`: raised here, it would leave the other processes waiting for this one
            self._unknown = error
            return
        super().process(inputs, outputs)
        for record, instances in zip(inputs, found, strict=True):
            self._sizes[record["file_name"]] = None if instances is None else instances.image_size

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Score everything processed since `reset`; a collective call, so every rank has to make it.

        Returns:
            {"cityscapes": {"AP", "AP50", "AP-<class>", "AP50-<class>"}} in percent on the main process, None on the
            others. A class without an instance to find in these images has no AP and is left out, as is the average
            when that holds for all classes: there is no NaN to write to JSON.

        Raises:
            UserError: an instance-id image is missing, broken, or of the wrong kind or size, or the model predicts a
                class that is unknown; on the main process only.
        """
        # gathering also waits until every process has written its predictions
        gathered = comm.gather((self._sizes, self._unknown))
        if not comm.is_main_process():
            return None
        try:
            for _, unknown in gathered:
                if unknown is not None:
                    raise unknown
            sizes = {name: size for part, _ in gathered for name, size in part.items()}
            truth = {name: truth_of(name, self._metadata.gt_dir) for name in sorted(sizes)}
            for name, path in truth.items():
                read_instance_ids(path, sizes[name])
            averages = self._official_averages(truth)
        finally:
            self._working_dir.cleanup()
        scores = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
        for name, score in averages["classes"].items():
            scores |= {f"AP-{name}": score["ap"], f"AP50-{name}": score["ap50%"]}
        return OrderedDict(cityscapes=in_percent(scores, self._logger))

    def _official_averages(self, truth: Mapping[str, str]) -> dict[str, Any]:
        import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as official

        predictions = [os.path.join(self._temp_dir, _stem(image_file) + "_pred.txt") for image_file in truth]
        # the script keeps its settings in a module global; a copy leaves other evaluators in this process alone
        settings = copy.copy(official.args)
        settings.predictionPath = os.path.abspath(self._temp_dir)
        settings.gtInstancesFile = os.path.join(self._temp_dir, "gtInstances.json")
        settings.JSONOutput = False
        settings.quiet = True
        return official.evaluateImgLists(predictions, list(truth.values()), settings)["averages"]


def truth_of(image_file: str, gt_dir: str) -> str:
    """The path of the instance-id image of <city>/<name>_leftImg8bit.<suffix> under `gt_dir`, gtFine/<split>.

    Raises:
        UserError: there is no such file.
    """
    city = os.path.basename(os.path.dirname(image_file))
    name = _stem(image_file).removesuffix("_leftImg8bit") + "_gtFine_instanceIds.png"
    path = os.path.join(PathManager.get_local_path(gt_dir), city, name)
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing, so {image_file} cannot be evaluated; unpack gtFine again.")
    return path


def in_percent(scores: Mapping[str, float], logger: logging.Logger) -> dict[str, float]:
    """The `scores`, in [0, 1] or NaN, in percent and without the NaN; logged as a table."""
    known = {name: 100 * float(score) for name, score in scores.items() if not math.isnan(score)}
    if known:
        logger.info("Cityscapes instance AP:\n" + create_small_table(known))
    else:
        logger.warning("These images hold no instance to find, so there is no Cityscapes AP.")
    return known


def _stem(image_file: str) -> str:
    return os.path.splitext(os.path.basename(image_file))[0]
