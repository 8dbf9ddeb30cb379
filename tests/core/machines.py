"""How many random lives a state machine lives: some in each run, many among the long tests."""

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

_SOME, _MANY = 100, 500

lives = pytest.mark.parametrize("lives", [_SOME, pytest.param(_MANY, marks=pytest.mark.soak)])


def live(machine: type[RuleBasedStateMachine], lives: int, *, steps: int) -> None:
    """Run a machine from new so many times, each for so many steps."""
    how = settings(max_examples=lives, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(machine, settings=how)
