"""The output directory of a run: writable, and nobody else's."""

import glob
import os
import tempfile

from gan_plugin.errors import UserError


def claim_output_dir(path: str, *, resume: bool, eval_only: bool) -> None:
    """Make sure that a run may write to `path`, which is made if need be.

    Raises:
        UserError: it is no writable folder, or it holds the checkpoint of another run and neither `resume` nor
            `eval_only` is set; nothing in it has been changed then.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {path} is not writable ({error.strerror}); set OUTPUT_DIR to a folder you may write to."
        ) from error
    checkpoints = sorted(os.path.basename(file) for file in glob.glob(os.path.join(glob.escape(path), "*.pth")))
    if checkpoints and not (resume or eval_only):
        raise UserError(
            f"OUTPUT_DIR {path} already holds a checkpoint of another run ({checkpoints[-1]}); add --resume to "
            "continue that run, or set OUTPUT_DIR to another folder."
        )
