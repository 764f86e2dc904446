"""Write the generator of a checkpoint alone, with its config: no discriminator, no optimizer, no training state.

inpaint.py export output/coigan/model_final.pth generator.pth
inpaint.py export output/coigan/model_final.pth generator.safetensors --last
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("weights", metavar="WEIGHTS", help="model_*.pth of a run")
    parser.add_argument("out", metavar="OUT", help="the file to write, .pth or .safetensors")
    parser.add_argument("--config-file", default="", metavar="FILE", help="the run's config.yaml if it lies elsewhere")
    parser.add_argument("--last", action="store_true", help="the last weights in place of their moving average")


def run(args: argparse.Namespace) -> None:
    """Export.

    Raises:
        UserError: the weights cannot be read, or the file cannot be written.
    """
    from coigan.inference import read_trained, write_trained

    trained = read_trained(args.weights, args.config_file, average=not args.last)
    trained.build()  # so that what is written is known to fit its config
    write_trained(trained, args.out)
    print(f"{args.out}: generator of {trained.source}, classes {', '.join(trained.classes)}, SHA-256 {trained.digest}")
