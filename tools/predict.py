#!/usr/bin/env python
"""Look at what a model finds in your own pictures.

    python tools/predict.py --config-file OUTPUT_DIR/config.yaml --weights OUTPUT_DIR/model_final.pth \\
        --input pictures/ --output seen/ [--score 0.5] [--json found.json] [KEY VALUE ...]
    python tools/predict.py ... --input "street/*.jpg" film.mp4 --output seen/
    python tools/predict.py ... --against OTHER_WEIGHTS

--output gets each picture, under its own name, with masks, boxes and scores over it, and each video as an .mp4. With
--against it gets both models side by side, and below them the objects on which they differ most, enlarged, with the
outlines of the first in blue and of the other in yellow. The config may be this project's or Detectron2's, YAML or a
LazyConfig; the weights a run's, an export's or a model zoo's.

A picture that cannot be read is named, and the others go on; the exit code is 2 then, as for all that is wrong.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command_line import Parser, run_command_line, score

if TYPE_CHECKING:
    import numpy as np

    from gan_plugin.engine.predictor import Predictor
    from gan_plugin.visualization.predictions import Inputs


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line (None: this process's)."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the model")
    parser.add_argument("--weights", required=True, metavar="FILE", help=".pth, .safetensors or .pkl")
    parser.add_argument(
        "--input",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="pictures, folders, patterns, videos",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of the pictures that are drawn")
    parser.add_argument("--score", type=score, default=0.5, metavar="S", help="the least score that is drawn")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="all that is found, of any score, as COCO's results: image_id is the picture's name without its suffix",
    )
    parser.add_argument("--against", metavar="FILE", help="weights of another model of the same config")
    parser.add_argument("--import", dest="modules", nargs=1, action="extend", default=[], metavar="MODULE", help="of a "
                        "project that registers components; may be repeated")  # fmt: skip
    parser.add_argument("--allow-pickle", action="store_true", help="read a .pkl: it runs whatever code its author put "
                        "there, so only of an origin that you trust")  # fmt: skip
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="change the config")
    return parser.parse_args(arguments)


def _check(args: argparse.Namespace, inputs: "Inputs") -> None:
    """Make the folder, unless what is written there or to --json would replace an input or cannot be written."""
    from gan_plugin.errors import UserError, as_user_error

    sources = {
        path.resolve() for path in (*inputs.pictures, *inputs.videos, Path(args.config_file), Path(args.weights))
    }
    targets = {args.output / inputs.target(path) for path in (*inputs.pictures, *inputs.videos)}
    targets |= {args.json} if args.json else set()
    for target in targets:
        if target.resolve() in sources:
            raise UserError(f"{target} is an input, and would be replaced; choose another folder for --output.")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise UserError(f"{args.json} is a folder, or lies in one that does not exist; choose another name for --json.")
    if args.against and inputs.videos:
        raise UserError(f"--against compares pictures; leave the video {inputs.videos[0]} out.")
    with as_user_error(f"The folder {args.output} cannot be made", "name another --output", OSError):
        args.output.mkdir(parents=True, exist_ok=True)


class _Looking:
    """One run of the command: what is found, what is written, and what went wrong."""

    def __init__(self, args: argparse.Namespace, inputs: "Inputs") -> None:
        from gan_plugin.data.findings import Findings
        from gan_plugin.engine.predictor import load_predictor

        self.args, self.inputs = args, inputs
        load = partial(
            load_predictor, args.config_file, opts=args.opts, modules=args.modules, allow_pickle=args.allow_pickle
        )
        self.predictors: list[Predictor] = [load(weights=args.weights)]
        if args.against:
            self.predictors.append(load(weights=args.against))
        self.metadata = self.predictors[0].metadata
        self.findings = Findings(option="")
        self.results: list[dict[str, Any]] = []
        self.objects = 0

    def picture(self, path: Path) -> None:
        """Look at one picture."""
        from gan_plugin.data.pictures import decode_problem, read_rgb

        if problem := decode_problem(path):
            self.findings.extend([problem])
            return
        pixels = read_rgb(path)
        found = [predictor(pixels) for predictor in self.predictors]
        self.note(found[0], self.inputs.image_id(path), path.name)
        self.save(self.drawn(pixels, found), path)

    def drawn(self, pixels: "np.ndarray", found: list[Any]) -> "np.ndarray":
        """The overlay of one model, or two models side by side."""
        from gan_plugin.visualization.predictions import confident, instances_of, most_different, overlay, side_by_side

        sure = [confident(each, self.args.score) for each in found]
        overlays = [overlay(pixels, each, self.metadata) for each in sure]
        if len(sure) == 1:
            return overlays[0]
        pairs = most_different(*map(instances_of, sure))
        names = [self.args.weights, self.args.against]
        return side_by_side(pixels, overlays, pairs, names, self.predictors[0].classes)

    def note(self, found: Any, image_id: str, file_name: str) -> None:
        """Add to the results in COCO's form."""
        from detectron2.evaluation.coco_evaluation import instances_to_coco_json

        self.objects += int((found.scores >= self.args.score).sum())
        for result in instances_to_coco_json(found, image_id) if self.args.json else ():
            label = self.predictors[0].category_id(result["category_id"])
            self.results.append({**result, "category_id": label, "file_name": file_name})

    def save(self, picture: "np.ndarray", path: Path) -> None:
        """Write a picture in the format of its source."""
        from PIL import Image

        from gan_plugin.data.mask_files import LOSSY
        from gan_plugin.files import write_whole

        target = self.args.output / self.inputs.target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        form = Image.registered_extensions()[target.suffix.lower()]
        image = Image.fromarray(picture)
        options = {"quality": 92} if target.suffix.lower() in LOSSY else {}
        write_whole(target, lambda file: image.save(file, form, **options), "Choose another --output.")

    def video(self, path: Path) -> None:
        """Look at all frames of a video, whose objects keep their colours."""
        from detectron2.utils.video_visualizer import VideoVisualizer
        from tqdm import tqdm

        from gan_plugin.visualization.predictions import confident, read_video, write_video

        visualizer = VideoVisualizer(self.metadata)
        target = self.args.output / self.inputs.target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with read_video(path) as film, write_video(target, film.rate, film.size) as write:
            for number, pixels in enumerate(tqdm(film.frames, total=film.total, desc=path.name, disable=None), start=1):
                found = self.predictors[0](pixels)
                self.note(found, f"{self.inputs.image_id(path)}/{number:06d}", path.name)
                write(visualizer.draw_instance_predictions(pixels, confident(found, self.args.score)).get_image())


def work(args: argparse.Namespace) -> None:
    """Draw and write everything, then say what could not be read."""
    import json

    from tqdm import tqdm

    from gan_plugin.files import write_whole
    from gan_plugin.visualization.predictions import find_inputs

    inputs = find_inputs(args.input)
    _check(args, inputs)
    looking = _Looking(args, inputs)
    for path in tqdm(inputs.pictures, desc="pictures", disable=None):
        looking.picture(path)
    for path in inputs.videos:
        looking.video(path)
    if args.json:
        data = json.dumps(looking.results).encode()
        write_whole(args.json, data, "Choose another --json.")
    read = len(inputs.pictures) - sum(group.count for group in looking.findings.groups.values())
    films = f" and {len(inputs.videos)} videos" if inputs.videos else ""
    print(f"{read} pictures{films}, {looking.objects} objects that score {args.score:g} or more: {args.output}")
    looking.findings.refuse()


def main(arguments: list[str] | None = None) -> int:
    work(parse(arguments))
    return 0


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
