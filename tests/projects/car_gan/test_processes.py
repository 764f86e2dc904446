"""Several processes against one with the same batch."""

import json

import one_game
import pytest
import torch
from support import assert_same, in_two_processes


def saved(folder, name):
    return torch.load(folder / name, weights_only=True)


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_two_processes_are_one_with_the_whole_batch(tmp_path, order):
    """Hinge, latent optimisation, lazy R1, clipping, an average; and the same again after a resume.

    Whole batches of a simultaneous game share one graph between the players, accumulated ones do not.
    """
    one, two, half, other = (tmp_path / name for name in ("one", "two", "half", "other"))
    for folder in (one, two, half, other):
        folder.mkdir()
    in_two_processes(one_game.train_twice, two, 8, order)
    whole = one_game.train_one_game(one, 8, order).game.state_dict()
    first, second = (saved(two, f"weights.{rank}") for rank in range(2))
    assert_same(first, second)
    torch.testing.assert_close(first, dict(whole), rtol=0, atol=1e-5)
    averages = [saved(folder, "model_final_ema.pth")["model"] for folder in (one, two)]
    torch.testing.assert_close(*averages, rtol=0, atol=1e-5)
    # what is logged is of the whole batch too
    lines = [json.loads((folder / "metrics.json").read_text().splitlines()[2]) for folder in (one, two)]
    keys = [key for key in lines[0] if key.startswith(("loss_", "gan/image/d_"))]
    assert {"loss_disc_image_reg", "loss_adv_image", "loss_gen_total", "gan/image/d_fake"} <= set(keys)
    for key in keys:
        assert lines[1][key] == pytest.approx(lines[0][key], abs=1e-5), key
    # two batches of half the size, accumulated, are the whole batch too
    parts = one_game.train_one_game(half, 4, order, accumulate=2).game.state_dict()
    torch.testing.assert_close(dict(parts), dict(whole), rtol=0, atol=1e-5)
    # half of each batch leads elsewhere
    less = one_game.train_one_game(other, 4, order).game.state_dict()
    assert max(float((less[name] - whole[name]).abs().max()) for name in whole) > 1e-3
    assert_same(saved(two, "model_final.pth"), saved(two, "unbroken.pth"))
