import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.corruptions import severity

FLOATS = (0.1, 0.2, 0.3, 0.4, 0.5)


def test_a_severity_has_the_constant_of_its_place():
    for s in range(1, severity.LEVELS + 1):
        assert float(severity.at(s, FLOATS)) == np.float32(FLOATS[s - 1])
        assert float(jax.jit(lambda s: severity.at(s, FLOATS))(s)) == np.float32(FLOATS[s - 1])


def test_one_program_serves_all_severities():
    run = jax.jit(lambda s: severity.at(s, FLOATS))
    assert [float(run(jnp.int32(s))) for s in (5, 1)] == [0.5, np.float32(0.1)]
    assert run._cache_size() == 1


def test_whole_numbers_stay_whole():
    assert severity.at(2, (1, 1, 2, 3, 4)).dtype == jnp.int32
    # One constant that is none makes all of them floats.
    assert severity.at(2, (1, 1, 2, 3, 4.5)).dtype == jnp.float32


def test_a_row_may_be_an_array():
    kernels = np.arange(30.0).reshape(5, 2, 3)
    np.testing.assert_array_equal(severity.at(4, kernels), kernels[3])


@pytest.mark.parametrize("table", [(1, 2, 3, 4), np.zeros((6, 2))])
def test_a_table_without_a_row_for_each_is_refused(table):
    with pytest.raises(ValueError, match=f"has 5 rows, not {len(table)}"):
        severity.at(1, table)
