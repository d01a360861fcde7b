import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgrec.training import state as states

PARAMS = {"head": {"kernel": jnp.ones((2, 3))}}
MODEL_STATE = {"batch_stats": {"norm": {"mean": jnp.full((3,), 0.5)}}}


@pytest.mark.parametrize("ema", [True, False])
def test_starts_at_step_0_with_a_fresh_optimizer(ema):
    optimizer = optax.adam(0.1)
    state = states.create(PARAMS, MODEL_STATE, optimizer, ema=ema)
    assert state.step == 0
    assert state.step.dtype == jnp.int32
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(optimizer.init(PARAMS))
    assert (state.average is not None) == ema


def test_variables_are_what_the_module_takes():
    state = states.create(PARAMS, MODEL_STATE, optax.sgd(0.1), ema=False)
    assert state.variables == {"params": PARAMS, **MODEL_STATE}
    assert state.averaged_variables == state.variables


def test_averaged_variables_are_the_averages():
    state = states.create(PARAMS, MODEL_STATE, optax.sgd(0.1), ema=True)
    halves = jax.tree.map(lambda leaf: leaf / 2, state.average)
    state = state.replace(average=halves)
    np.testing.assert_array_equal(state.averaged_variables["params"]["head"]["kernel"], 0.5)
    np.testing.assert_array_equal(state.averaged_variables["batch_stats"]["norm"]["mean"], 0.25)
    np.testing.assert_array_equal(state.variables["params"]["head"]["kernel"], 1.0)


def test_averages_share_no_buffer_with_what_they_average():
    # Two names for one buffer could not both be donated to the step.
    state = states.create(PARAMS, MODEL_STATE, optax.sgd(0.1), ema=True)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


def test_a_model_without_statistics_has_an_empty_model_state():
    state = states.create(PARAMS, {}, optax.sgd(0.1), ema=True)
    assert state.averaged_variables == {"params": state.average["params"]}
    assert state.variables == {"params": PARAMS}
