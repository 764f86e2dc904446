"""What two processes agree on, worked by hand from what each of them has seen."""

import json

import pytest
from agreed_values import write_agreed
from support import in_two_processes


def test_two_processes_agree_on_the_mean_of_what_both_have_seen(tmp_path):
    in_two_processes(write_agreed, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["mean"] == [1.5, 4]
    # 3.5 of 4 right, then 2 of 2: a tenth of the way to 0.875, and to 1
    assert first["accuracy"] == pytest.approx(0.9 * (0.5 + 0.1 * 0.375) + 0.1)
    # r is 0.75 over all, though 0.5 in the second process, and 8 images were seen
    assert first["probability"] == pytest.approx(0.08)
    # half of |(3, 4)| beside |(1, 2)|, wherever the logits are
    assert first["shares"] == pytest.approx(dict.fromkeys(("both", "one"), 2.5 / 5**0.5))
