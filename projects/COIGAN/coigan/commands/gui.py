"""Open a page on this machine to paint masks on and see the result.

    inpaint.py gui WEIGHTS --images FOLDER [--port 8000] [--save output/gui]

Then open the address that it prints. Ctrl-C ends it.
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
        UserError: the weights, the images or the port cannot be used.
    """
    from coigan.data.images import images_in
    from coigan.gui import Session, make_server

    path = Path(args.images)
    session = Session(open_inpainter(args), [path] if path.is_file() else images_in(path), Path(args.save))
    with make_server(session, args.port) as server:
        print(f"Open http://127.0.0.1:{server.server_address[1]}/ in a browser; Ctrl-C ends this.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("Bye.")
