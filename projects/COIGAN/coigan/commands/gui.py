"""Open a page on this machine to draw masks on pictures and see the defects that are painted there.

    inpaint.py gui WEIGHTS --images FOLDER [--port 8000] [--save output/gui]

Then open the address that it prints. Ctrl-C ends it. Needs Gradio: pip install 'gan_plugin[gui]'.
"""

import argparse
from pathlib import Path

from coigan.commands._arguments import add_weights_arguments, open_inpainter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_weights_arguments(parser)
    parser.add_argument("--images", required=True, metavar="PATH", help="an image or a folder of base images")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0 takes any that is free")
    parser.add_argument("--save", default="output/gui", metavar="DIR", help="where samples are saved")


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: Gradio is missing, or the weights, the images or the port cannot be used.
    """
    from threading import Event

    from coigan.data.images import images_in
    from coigan.gui import Studio, served

    path = Path(args.images)
    folder, bases = (path.parent, [path]) if path.is_file() else (path, images_in(path))
    with served(Studio(open_inpainter(args), folder, bases, args.save), args.port) as address:
        print(f"Open {address} in a browser; Ctrl-C ends this.", flush=True)
        Event().wait()
