"""The mask AP of a Mask R-CNN with and without synthetic defects: several seeds, an interval for each difference.

    inpaint.py augment RUN/model_final.pth --out gan --count 5000
    inpaint.py augment RUN/model_final.pth --out copies --count 5000 --method copy_paste
    inpaint.py ab --config-file projects/COIGAN/configs/detector/mask_rcnn_tiles.yaml \\
        --iters-a 10000 --iters-b 10000 --train DATA/train/annotations.json --test DATA/test/annotations.json \\
        --extra gan=gan/annotations.json copy_paste=copies/annotations.json --output OUT

OUT gets results.json, results.csv, report.html and an ordinary run of tools/train_net.py in seed<S>/<arm>. The same
command again continues; more seeds may be added. KEY VALUE pairs at the end, after --, change the config of all runs.
"""

import argparse
from functools import partial

from _command_line import add_plan_arguments

from coigan.commands._arguments import add_sets_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sets_arguments(parser)
    add_plan_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, run what is left, write the report, print the differences.

    Raises:
        UserError: an argument is not usable, or a set cannot be used.
    """
    from coigan.ab import Sets, ab_story, make_ab_plan, read_tile_set
    from gan_plugin.comparison.training_sets import compare_training_sets, named_paths

    extras = {name: read_tile_set(path) for name, path in named_paths(args.extra, "--extra").items()}
    sets = Sets(read_tile_set(args.train), read_tile_set(args.test), extras)
    return compare_training_sets(args, partial(make_ab_plan, sets=sets), partial(ab_story, sets=sets))
