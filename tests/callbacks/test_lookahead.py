"""How often schedules are evaluated."""

import dataclasses

import numpy as np
import pytest

import tfprune
from tfprune.callbacks import lookahead
from tfprune.callbacks.lookahead import Lookahead


@pytest.fixture
def evaluated(monkeypatch):
    """The first steps of the ranges for which a schedule is evaluated."""
    lookahead._remembered.cache_clear()
    found = []
    original = tfprune.PruningSchedule.evaluate

    def evaluate(self, steps):
        found.append(int(steps[0]))
        return original(self, steps)

    monkeypatch.setattr(tfprune.PruningSchedule, "evaluate", evaluate)
    return found


def ramp(end):
    return tfprune.PolynomialDecay(0.0, 0.8, 0, end, power=1, frequency=10)


def test_a_built_in_schedule_is_evaluated_once_for_all_trainings(evaluated):
    assert Lookahead().latest_due(ramp(4000), 5, 1005) == pytest.approx(0.8 / 4)
    assert evaluated == [0]
    # An equal one is the same, another one is not.
    assert Lookahead().latest_due(ramp(4000), 5, 1005) == pytest.approx(0.8 / 4)
    assert evaluated == [0]
    assert Lookahead().latest_due(ramp(2000), 5, 1005) == pytest.approx(0.8 / 2)
    assert evaluated == [0, 0]
    assert Lookahead().latest_due(ramp(4000), 1100, 1205) == pytest.approx(0.8 * 0.3)
    assert evaluated == [0, 0, 1024]


def test_a_schedule_of_ones_own_may_change_between_trainings(evaluated):
    @dataclasses.dataclass
    class Own(tfprune.PruningSchedule):
        value: float

        def __call__(self, step):
            step = np.asarray(step)
            return step % 10 == 0, np.full(step.shape, self.value, "float32")

        def get_config(self):
            return {"value": self.value}

    schedule = Own(0.25)
    assert Lookahead().latest_due(schedule, 1, 15) == 0.25
    schedule.value = 0.5
    assert Lookahead().latest_due(schedule, 1, 15) == 0.5
    assert evaluated == [0, 0]
