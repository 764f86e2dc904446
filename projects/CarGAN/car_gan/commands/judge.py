"""Let a person tell generated cars from crops, since FID and IS do not always match the eye.

    cars.py judge output/dcgan --output judge --count 40              writes judge/judge.html and judge/judge_key.json
    cars.py judge --answers answers.json --key judge/judge_key.json   scores what the page has saved

The score is printed, and written beside the answers as judgement.json. The page does not know which is which; keep the
key away from who marks.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("run_folder", nargs="?", type=Path, metavar="RUN", help="OUTPUT_DIR of a training")
    parser.add_argument("--weights", default="", metavar="FILE", help="in RUN; default: the best in FID")
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the page")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="cars on the page")
    parser.add_argument("--seed", type=int, default=0, help="of samples, choice and order")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="that the page has saved")
    parser.add_argument("--key", type=Path, metavar="FILE", help="that was written with the page")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options to change, such as MODEL.DEVICE cpu")


def run(args: argparse.Namespace) -> None:
    """Write a page, or score its answers."""
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
