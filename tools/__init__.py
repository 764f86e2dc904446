"""The tools as the package `gan_plugin_tools` of an installation; in a checkout each is a script.

They import each other by their bare names, as scripts do.
"""

import sys
from pathlib import Path

if (_FOLDER := str(Path(__file__).resolve().parent)) not in sys.path:
    sys.path.append(_FOLDER)
