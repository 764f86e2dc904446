"""A data loading worker that is gone, as when the kernel has run out of memory."""

import pytest
import torch

SENTENCE = "--resume continues from the last checkpoint."


@pytest.mark.parametrize("how, words", [("killed", "is killed by signal: Killed"), ("exits", "with exit code 3")])
def test_in_training(tool, tmp_path, how, words):
    out = tmp_path / "run"
    # the second worker loads every other batch; it is asked for its 26th when the run is far past its first checkpoint
    options = {"DATALOADER.NUM_WORKERS": 2, "SOLVER.MAX_ITER": 100}
    ended = tool(out, options=options, worker_dies={"item": 26, "how": how})
    assert ended.error.startswith("A data loading worker died") and words in ended.error
    assert "NUM_WORKERS" in ended.error and "memory" in ended.error and ended.error.endswith(SENTENCE)
    assert ended.seconds < 15
    last = torch.load(out / (out / "last_checkpoint").read_text(), weights_only=True)
    assert last["model"] and last["iteration"] < 30
    assert ended.error in (out / "log.txt").read_text()


def test_in_an_evaluation(tool, tmp_path):
    options = {"DATALOADER.NUM_WORKERS": 2, "DATASETS.TEST": ("penn_fudan_val",), "SOLVER.MAX_ITER": 2}
    ended = tool(tmp_path / "run", options=options, worker_dies={"item": 1, "how": "killed", "training": False})
    assert ended.error.startswith("A data loading worker died")
    assert (tmp_path / "run/model_final.pth").exists()


def test_while_a_file_is_written(tmp_path):
    """PyTorch raises in the midst of whatever is done when a worker dies; it is not the file that is to blame."""
    from gan_plugin.errors import run_command_line
    from gan_plugin.files import write_whole

    def interrupted(file):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that")

    with pytest.raises(RuntimeError, match="Bus error"):
        write_whole(tmp_path / "file", interrupted, "Free some space.")
    assert not list(tmp_path.iterdir())
    assert run_command_line(lambda: interrupted(None)) == 2
