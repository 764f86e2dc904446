"""A page on this machine to paint masks on and see what the generator makes of them."""

from coigan.gui.server import make_server
from coigan.gui.session import Session

__all__ = ["Session", "make_server"]
