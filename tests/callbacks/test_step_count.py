"""What a schedule holds at a step, found with few evaluations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfprune
from tfprune.callbacks.lookahead import Lookahead


class Listed(tfprune.PruningSchedule):
    """Due at given steps, each with its own sparsity; counts how often it is asked."""

    def __init__(self, steps):
        self.steps = sorted(steps)
        self.calls = 0

    def evaluate(self, steps):
        self.calls += 1
        steps = np.asarray(steps)
        return np.isin(steps, self.steps), self.value(steps).astype("float32")

    @staticmethod
    def value(steps):
        return (steps % 1009 + 1) / 1024

    def expected(self, first, last):
        due = [step for step in self.steps if first <= step <= last]
        return float(self.value(due[-1])) if due else None


steps = st.integers(0, 9000)


@given(due=st.lists(steps, max_size=5), asked=st.lists(st.tuples(steps, steps), max_size=6))
def test_the_latest_due_step_of_a_range(due, asked):
    schedule, ahead = Listed(due), Lookahead()
    for first, last in asked:
        assert ahead.latest_due(schedule, first, last) == schedule.expected(first, last)
        assert ahead.held(schedule, last) == (schedule.expected(0, last) or 0.0)


@pytest.mark.parametrize("due", [[], [0], [5_000_000]], ids=str)
def test_a_schedule_last_due_long_ago_is_asked_a_few_times(due):
    schedule, ahead = Listed(due), Lookahead()
    assert ahead.held(schedule, 10_000_000) == (schedule.expected(0, 10_000_000) or 0.0)
    # 1,024 steps at a time, these would be some 10,000.
    assert schedule.calls < 25


def test_training_asks_a_schedule_once_in_a_thousand_steps():
    schedule, ahead = Listed([0, 2000]), Lookahead()
    for step in range(4096):
        ahead.latest_due(schedule, step, step)
    assert schedule.calls == 4
