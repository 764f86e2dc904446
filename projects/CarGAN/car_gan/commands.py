"""The verbs of cars.py: their arguments, and what they do; nothing heavy is imported before a verb is done."""

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from _command_line import add_plan_arguments, add_process_arguments
from _verbs import Verb

if TYPE_CHECKING:
    from car_gan.scenes.scene import SceneSource


def _output(parser: argparse.ArgumentParser, metavar: str = "DIR", words: str = "") -> None:
    parser.add_argument("--output", type=Path, required=True, metavar=metavar, help=words or None)


def _options(parser: argparse.ArgumentParser, words: str = "options to change, such as MODEL.DEVICE cpu") -> None:
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=words)


def _of_run(parser: argparse.ArgumentParser) -> None:
    """Which generator."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="OUTPUT_DIR of a training")
    parser.add_argument("--weights", default="", metavar="FILE", help="in RUN; default: the best in FID")
    parser.add_argument("--seed", type=int, default=0, help="of the latents")
    _options(parser)


def _of_work(parser: argparse.ArgumentParser) -> None:
    """Of long work on many scenes."""
    _output(parser, words="of this command alone")
    parser.add_argument("--config-file", default="", metavar="FILE", help="options")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; default: this one")
    _options(parser, "options that go over the file's")


def _of_scenes(parser: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--cityscapes", metavar="DIR", help="holds leftImg8bit and gtFine, or cityscapes/ with both")
    group.add_argument("--coco", nargs=2, metavar=("JSON", "IMAGES"), help="a COCO file of instances and its images")
    return group


def _scenes(args: argparse.Namespace, splits: Sequence[str], skip_broken: bool | None = None) -> "SceneSource":
    """The street scenes that `args` name; `skip_broken` is None where that is no option."""
    from car_gan.scenes.cityscapes import Cityscapes
    from car_gan.scenes.sources import Coco

    on_bad, option = "skip" if skip_broken else "stop", "" if skip_broken is None else "SKIP_BROKEN True"
    if args.cityscapes:
        return Cityscapes(args.cityscapes, splits, on_bad, option)
    json_file, images = args.coco
    return Coco(json_file, images, on_bad, option)


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    group = _of_scenes(parser)
    group.add_argument("--crops", metavar="DIR", help="a folder of pictures that show one car each")
    group.add_argument("--stanford", metavar="DIR", help="Stanford Cars: cars_train, cars_test, devkit")


def _build(args: argparse.Namespace) -> None:
    """Cut single cars out of annotated scenes.

        cars.py build --cityscapes DIR --output OUT
        cars.py build --coco instances.json IMAGES --output OUT CATEGORY truck
        cars.py build --stanford DIR --output OUT MODE context BOX truth DETECTOR.CONFIG ""
        cars.py build --cityscapes DIR --output OUT --config-file projects/CarGAN/configs/build_clean.yaml

    OUT gets crops/*.png, manifest.jsonl (where each comes from), dropped.jsonl (why others are not there), funnel.json,
    scores.json (what the detector said; DETECTOR.RECORDED takes it) and review.html. The same command again continues.
    KEY VALUE pairs at the end change options; car_gan/crops/build.py has them all, and without a file they are the
    source document's.
    """
    from car_gan.crops.build import build, build_defaults
    from car_gan.crops.review import write_review
    from car_gan.pictures import checked_colour
    from car_gan.scenes.sources import CropFolder, StanfordCars
    from gan_plugin.engine.setup import merge_options

    cfg = build_defaults()
    merge_options(cfg, args.config_file, args.opts)
    source: SceneSource
    if args.crops:
        source = CropFolder(args.crops, cfg.CATEGORY, checked_colour(cfg.KEY))
    else:
        source = StanfordCars(args.stanford) if args.stanford else _scenes(args, cfg.SPLITS, cfg.SKIP_BROKEN)
    funnel = build(source, cfg, args.output, workers=args.workers)
    if count := funnel.empty.get("test"):
        words = "%d images of the test split have no car: its public annotation is a dummy."
        logging.getLogger("car_gan").warning(words, count)
    print(funnel.table())
    crops = "1 crop" if funnel.kept == 1 else f"{funnel.kept} crops"
    print(f"{crops} in {args.output}; to look through: {write_review(args.output)}")


def _review_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="OUT", help="the --output of cars.py build")
    parser.add_argument("--reject", type=Path, metavar="FILE", help="the list that the page saves")
    parser.add_argument("--most", type=int, default=600, metavar="N", help="crops on the page")


def _review(args: argparse.Namespace) -> None:
    """A page of the crops to look through, and what you reject there out of the data set.

    cars.py review OUT                          writes OUT/review.html
    cars.py review OUT --reject rejected.txt    takes the crops that the page has listed out of OUT/manifest.jsonl
    """
    from car_gan.crops.review import apply_rejections, write_review
    from gan_plugin.rules import whole

    whole(1).check("--most", args.most)
    if args.reject:
        print(f"{apply_rejections(args.folder, args.reject)} crops taken out of {args.folder}")
    print(write_review(args.folder, args.most))


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", default="", metavar="FILE", help="a preset; default: dcgan")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    add_process_arguments(parser)
    _options(parser, "options that go over the file's")


def _train(args: argparse.Namespace) -> int:
    """Train a GAN on a folder of crops.

        cars.py train --config-file projects/CarGAN/configs/dcgan.yaml DATASETS.CROPS crops OUTPUT_DIR output/dcgan
        cars.py train --config-file ... --num-gpus 4 ...

    KEY VALUE pairs at the end change options; car_gan/config.py has them all. Without a GPU the CPU is used.
    """
    from gan_plugin.engine.launch import launch

    return launch(_train_here, args)


def _train_here(args: argparse.Namespace) -> None:
    from car_gan.config import load_config
    from car_gan.runs.training import train

    train(load_config(args.config_file, args.opts), resume=args.resume)


def _resume_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="OUTPUT_DIR of the training")
    add_process_arguments(parser)
    _options(parser, "options to change, such as SOLVER.MAX_EPOCHS")


def _resume(args: argparse.Namespace) -> int:
    """Continue a training that was stopped, with the options it was begun with.

        cars.py resume output/dcgan [KEY VALUE ...]

    On a CPU the result equals that of an unbroken run bit for bit.
    """
    from car_gan.runs.training import CONFIG
    from gan_plugin.engine.launch import launch
    from gan_plugin.errors import UserError

    config = args.run_folder / CONFIG
    if not config.is_file():
        raise UserError(f"{args.run_folder} holds no {CONFIG}, so there is no training to continue; check the path.")
    args.config_file, args.resume = str(config), True
    args.opts = [*args.opts, "OUTPUT_DIR", str(args.run_folder)]
    return launch(_train_here, args)


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=64, metavar="N")
    words = "redraw entries of z beyond T; 0: none"
    parser.add_argument("--truncation", type=float, default=0.0, metavar="T", help=words)
    parser.add_argument("--label", default="", metavar="NAME", help="of a conditional generator, such as red")


def _sample(args: argparse.Namespace) -> None:
    """Draw new cars with a trained generator.

        cars.py sample output/dcgan --count 100 --output new_cars

    Writes one PNG file for each car (RGB on the key colour, or RGBA from a generator with alpha), a sheet of the first
    64, and samples.json: how many there are, of which form, weights, seed and terms. `cars.py compose --samples` takes
    the folder cars/. Cars of an earlier call are replaced; a folder with other pictures is refused.
    """
    from car_gan.runs.samples import write_samples
    from car_gan.runs.trained import load_trained
    from gan_plugin.rules import LIMIT, whole

    whole(1).check("--count", args.count)
    LIMIT.check("--truncation", args.truncation)
    trained = load_trained(args.run_folder, args.weights, args.opts)
    folder, licence = write_samples(trained, args.output, args.count, args.seed, args.truncation, args.label)
    print(f"{args.count} cars of {trained.weights} in {folder}. {licence}")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--truncation", type=float, default=0.0, metavar="T", help="of the latents; 0: none")


def _evaluate(args: argparse.Namespace) -> None:
    """Score a trained GAN, and look for memorised crops.

        cars.py evaluate output/dcgan --output scores TEST.INCEPTION weights-inception-2015-12-05-6726825d.pth

    Without TEST.INCEPTION the scores are by TEST.FEATURES: EfficientNet-Lite0 where it is installed, or random
    convolutions; they compare with nothing but themselves. The second scores are of the cars keyed and put on
    TEST.BACKGROUND, since the flat key colour distorts the first. Writes scores.json, scores_on_ground.json,
    memorisation.json, neighbours.png (samples above the training crops nearest to them) and on_ground.png (crops above
    samples, as the second scores see them).
    """
    from tabulate import tabulate

    from car_gan.runs.evaluation import evaluate_trained
    from car_gan.runs.trained import load_trained

    trained = load_trained(args.run_folder, args.weights, [*args.opts, "TEST.SEED", str(args.seed + 1)])
    found = evaluate_trained(trained, args.output, truncation=args.truncation)
    for scores in filter(None, (found.scores, found.on_ground)):
        numbers = scores.results()[scores.label]
        print(tabulate(list(numbers.items()), headers=["score", "value"], floatfmt=".4g", tablefmt="github"))
        counts = f"{scores.real_count} real and {scores.fake_count} generated images"
        print(f"Features: {scores.extractor}; {counts}; weights {trained.weights}.")
    print(found.check.sentence())


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folders", nargs="+", type=Path, metavar="RUN", help="OUTPUT_DIR of a training")
    _output(parser)
    parser.add_argument("--title", default="Cars: a comparison of GANs")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="the same for all runs")


def _compare(args: argparse.Namespace) -> None:
    """A page on several trainings: scores by one protocol, curves, samples, nearest crops, attention.

        cars.py compare output/dcgan output/logan --output comparison --opts TEST.INCEPTION weights-inception.pth

    Writes report.html (one file, with all pictures), and what `cars.py evaluate` writes in a folder for every run.
    """
    from tabulate import tabulate

    from car_gan.runs.report import check_comparable, read_arm, write_report

    check_comparable(args.run_folders, args.opts)
    arms = [read_arm(folder, args.output, args.opts) for folder in args.run_folders]
    report = args.output / "report.html"
    write_report(arms, report, args.title)
    rows = [[arm.name, arm.scores.FID, arm.scores.IS, arm.scores.KID, arm.scores.recall] for arm in arms]
    print(tabulate(rows, headers=["run", "FID", "IS", "KID", "recall"], floatfmt=".4g", tablefmt="github"))
    print(f"Features: {arms[0].scores.extractor}; report: {report}")


def _judge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", nargs="?", type=Path, metavar="RUN", help="OUTPUT_DIR of a training")
    parser.add_argument("--weights", default="", metavar="FILE", help="in RUN; default: the best in FID")
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the page")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="cars on the page")
    parser.add_argument("--seed", type=int, default=0, help="of samples, choice and order")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="that the page has saved")
    parser.add_argument("--key", type=Path, metavar="FILE", help="that was written with the page")
    _options(parser)


def _judge(args: argparse.Namespace) -> None:
    """Let a person tell generated cars from crops, since FID and IS do not always match the eye.

    cars.py judge output/dcgan --output judge --count 40              writes judge/judge.html and judge/judge_key.json
    cars.py judge --answers answers.json --key judge/judge_key.json   scores what the page has saved

    The score is printed, and written beside the answers as judgement.json. The page does not know which is which; keep
    the key away from who marks.
    """
    from car_gan.runs.judge import KEY, judge_answers, write_judge, write_judgement
    from car_gan.runs.trained import load_trained
    from gan_plugin.errors import UserError

    if args.answers and args.key:
        judgement = judge_answers(args.answers, args.key)
        write_judgement(judgement, args.answers.with_name("judgement.json"))
        print(judgement.sentence())
    elif args.run_folder and args.output and not args.answers:
        trained = load_trained(args.run_folder, args.weights, args.opts)
        page = write_judge(trained, args.output, args.count, args.seed)
        print(f"{page}; what is what: {args.output / KEY}")
    else:
        raise UserError("Name RUN and --output to write a page, or --answers and --key to score one.")


def _interpolate_arguments(parser: argparse.ArgumentParser) -> None:
    _of_run(parser)
    _output(parser, "FILE", "a PNG file")
    parser.add_argument("--rows", type=int, default=4, metavar="N")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="images of a strip")


def _interpolate(args: argparse.Namespace) -> None:
    """Strips from one latent to another: a generator that has learnt the space of cars changes them smoothly.

        cars.py interpolate output/dcgan --output strips.png --rows 4 --steps 10

    A conditional generator keeps the first latent's label along a strip.
    """
    from car_gan.output import made_folder
    from car_gan.runs.pictures import strips, write_picture
    from car_gan.runs.trained import load_trained
    from gan_plugin.rules import whole

    whole(1).check("--rows", args.rows)
    whole(2).check("--steps", args.steps)
    trained = load_trained(args.run_folder, args.weights, args.opts)
    made_folder(args.output.parent)
    write_picture(args.output, strips(trained, args.rows, args.steps, args.seed))
    print(f"{args.rows} strips of {args.steps} images in {args.output}")


def _export(args: argparse.Namespace) -> None:
    """The generator alone, for use elsewhere: TorchScript that needs none of this code, with its terms beside it.

        cars.py export output/dcgan --output exported

    Writes generator.ts (z -> images in [-1, 1]), generator.pth (weights), config.yaml, LICENCE_NOTE.txt, export.json,
    and checks that generator.ts draws what the generator draws. First it looks for memorised crops as `evaluate`
    does, and leaves memorisation.json and neighbours.png. z is Gaussian or uniform, as export.json says, and for a
    conditional generator followed by a one-hot vector of its labels.
    """
    from car_gan.runs.evaluation import check_copies
    from car_gan.runs.samples import write_generator
    from car_gan.runs.trained import load_trained, terms_of

    trained = load_trained(args.run_folder, args.weights, args.opts)
    licence = terms_of(trained.run)
    verdict = check_copies(trained, args.output).sentence()
    write_generator(trained, args.output, verdict, licence, args.seed)
    print(f"The generator of {trained.weights} in {args.output}. {verdict} {licence}")


def _compose_arguments(parser: argparse.ArgumentParser) -> None:
    _of_scenes(parser)
    parser.add_argument("--samples", type=Path, metavar="PATH", help="the generated cars; not needed with MIX 0")


def _compose(args: argparse.Namespace) -> None:
    """Paste generated cars into street scenes, with masks.

        cars.py compose --samples SAMPLES --cityscapes DIR --output OUT
        cars.py compose --samples samples.pt --coco instances.json IMAGES --output OUT MIX 1.0 CARS "(1,5)"

    SAMPLES is a folder of PNG files (RGB on the key colour, or RGBA), or a .pt file with (N, C, H, W) in [-1, 1]. OUT
    gets images/, annotations.json for register_coco_instances, provenance.jsonl (which sample went where), summary.json
    and examples.html. The same command again continues. KEY VALUE pairs at the end change options;
    car_gan/compose/compose.py has them all.
    """
    from car_gan.compose.compose import compose, compose_defaults
    from car_gan.compose.examples import write_examples
    from car_gan.compose.samples import SampleBank
    from gan_plugin.engine.setup import merge_options

    cfg = compose_defaults()
    merge_options(cfg, args.config_file, args.opts)
    summary = compose(_scenes(args, cfg.SPLITS), args.samples, cfg, args.output, workers=args.workers)
    refused = ", ".join(f"{reason} {count}" for reason, count in summary["refused"].items()) or "none"
    print(
        f"{summary['synthetic']} new '{cfg.CATEGORY}' in {summary['composed']} of {summary['images']} scenes, beside "
        f"{summary['annotated']} annotated ones ({summary['share']:.0%} are new). Tries without success: {refused}."
    )
    bank = SampleBank(args.samples, cfg.MATTING) if cfg.MIX else None
    print(f"Scenes and annotations.json in {args.output}; look at some: {write_examples(args.output, bank)}")


def _ab_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (("real", "scenes as they are"), ("test", "other scenes")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=f"{what}, by cars.py compose")
    words = "the scenes of --real with new cars, an arm each; without a NAME it is synthetic"
    parser.add_argument("--composed", nargs="+", required=True, metavar="[NAME=]DIR", help=words)
    parser.add_argument("--both", action="store_true", help="a second arm for each, trained on --real besides")
    parser.add_argument("--category", default="car", help="whose AP is shown first")
    add_plan_arguments(parser)


def _ab(args: argparse.Namespace) -> int:
    """The car AP of a Mask R-CNN with and without synthetic cars: several seeds, an interval for each difference.

        cars.py compose --cityscapes DIR --output real MIX 0 SPLITS "('train',)"
        cars.py compose --cityscapes DIR --output composed --samples SAMPLES SPLITS "('train',)"
        cars.py compose --cityscapes DIR --output copies --samples crops SPLITS "('train',)"
        cars.py compose --cityscapes DIR --output test MIX 0 SPLITS "('val',)"
        cars.py ab --config-file configs/mask_rcnn_cityscapes.yaml --real real --composed composed copies=copies \\
            --test test --iters-a N --iters-b M --output OUT

    OUT gets results.json, results.csv, report.html and an ordinary run of tools/train_net.py in seed<S>/<arm>. The same
    command again continues; more arms and seeds may be added. KEY VALUE pairs at the end change the config of all
    runs; right after an option of several values, such as --seeds, put -- before them.
    """
    from car_gan.ab import Sets, ab_story, check_category_of, make_ab_plan
    from gan_plugin.comparison.training_sets import compare_training_sets, named_paths

    composed = [text if "=" in text else f"synthetic={text}" for text in args.composed]
    folders = {name: Path(path) for name, path in named_paths(composed, "--composed", "[NAME=]DIR").items()}
    sets = Sets(args.real, folders, args.test, args.both)
    check_category_of(sets, args.category)
    story = partial(ab_story, sets=sets, category=args.category)
    return compare_training_sets(args, partial(make_ab_plan, sets=sets), story)


VERBS = {
    "build": Verb("a data set of single cars from street scenes", _build, [_build_arguments, _of_work]),
    "review": Verb("a page of the crops to look through; takes out what you reject", _review, [_review_arguments]),
    "train": Verb("train a GAN of a preset on the crops", _train, [_train_arguments]),
    "resume": Verb("go on with a training that has stopped", _resume, [_resume_arguments]),
    "sample": Verb("pictures of new cars", _sample, [_of_run, _output, _sample_arguments]),
    "evaluate": Verb("FID, IS and more of a trained GAN", _evaluate, [_of_run, _output, _evaluate_arguments]),
    "compare": Verb("a table and curves of several trainings", _compare, [_compare_arguments]),
    "judge": Verb("a page on which a person tells new cars from crops, and its score", _judge, [_judge_arguments]),
    "interpolate": Verb("strips from one latent to another", _interpolate, [_interpolate_arguments]),
    "export": Verb("the generator alone, for use elsewhere", _export, [_of_run, _output]),
    "compose": Verb("new cars into street scenes, as images and COCO JSON", _compose, [_compose_arguments, _of_work]),
    "ab": Verb("the car AP of a Mask R-CNN with and without synthetic cars", _ab, [_ab_arguments]),
}
