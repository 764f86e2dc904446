"""Hyperband's brackets against its paper and the slides' setting."""

import math

import pytest
from cityscapes_tuning.search.fine import brackets, cost, promoted

from gan_plugin.errors import UserError


def as_pairs(table):
    return [[(rung.trials, round(rung.resource, 1)) for rung in bracket.rungs] for bracket in table]


def test_the_slides_twenty_epochs():
    assert as_pairs(brackets(20, 3)) == [[(9, 2.2), (3, 6.7), (1, 20)], [(5, 6.7), (1, 20)], [(3, 20)]]


def test_the_papers_example():
    # Li et al. 2018, table 1: R = 81, eta = 3
    assert as_pairs(brackets(81, 3)) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


def test_cost_counts_what_promoted_trials_have_already():
    # 9 at 20/9, 3 of them on to 20/3, 1 on to 20; 5 at 20/3, 1 on to 20; 3 at 20
    by_hand = 9 * 20 / 9 + 3 * (20 / 3 - 20 / 9) + (20 - 20 / 3) + 5 * 20 / 3 + (20 - 20 / 3) + 3 * 20
    assert cost(brackets(20, 3)) == pytest.approx(by_hand)


def test_a_failed_trial_is_never_promoted():
    assert promoted({"a": math.inf, "b": 2.0, "c": 1.0, "d": math.nan}, 3) == ["c", "b"]


def test_refuses_numbers_that_make_no_table():
    with pytest.raises(UserError, match="eta > 1"):
        brackets(20, 1)
