import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imgrec.config import MeshConfig
from imgrec.data import ArraySource, Split, pipeline
from imgrec.training import mesh as meshes
from imgrec.training.feed import DeviceFeed

MESH = meshes.create(MeshConfig(data=2, fsdp=2))


@pytest.fixture
def host():
    """host(): a fresh stream of batches of 8 from 10 examples, so that batches cross epochs."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    split = Split("train", ArraySource(images, np.arange(10)), np.arange(10))
    return lambda: pipeline.train_batches(split, batch_size=8, seed=3, threads=1, prefetch=2)


def take(stream, count):
    return [next(stream) for _ in range(count)]


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_hands_out_the_hosts_batches_in_their_order(host, ahead):
    assert_same(take(DeviceFeed(host(), MESH, ahead=ahead), 7), take(host(), 7))


@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_the_state_is_that_of_the_last_batch_handed_out(host, ahead, taken):
    feed = DeviceFeed(host(), MESH, ahead=ahead)
    take(feed, taken)
    resumed = DeviceFeed(host(), MESH, ahead=2)
    resumed.set_state(feed.get_state())
    assert_same(take(resumed, 4), take(host(), taken + 4)[taken:])
    assert_same(take(feed, 2), take(host(), taken + 2)[taken:])  # asking changed nothing


def test_the_state_does_not_depend_on_how_far_ahead_the_feed_is(host):
    states = set()
    for ahead in (1, 2, 5):
        feed = DeviceFeed(host(), MESH, ahead=ahead)
        take(feed, 3)
        states.add(feed.get_state())
    assert len(states) == 1


def test_a_feed_that_is_running_can_be_set_back_and_forward(host):
    feed = DeviceFeed(host(), MESH, ahead=3)
    take(feed, 2)
    second = feed.get_state()
    take(feed, 3)
    fifth = feed.get_state()
    expected = take(host(), 8)
    feed.set_state(second)
    assert feed.get_state() == second
    assert_same(take(feed, 2), expected[2:4])
    feed.set_state(fifth)
    assert_same(take(feed, 3), expected[5:8])


def test_batches_lie_on_the_mesh_cut_by_rows(host):
    batch = next(DeviceFeed(host(), MESH, ahead=2))
    for value in batch.values():
        assert value.sharding.mesh == MESH
        assert value.sharding.spec == PartitionSpec(("data", "fsdp"))
        assert [shard.data.shape[0] for shard in value.addressable_shards] == [2] * 4


def test_nothing_is_moved_behind_the_loops_back(host):
    feed = DeviceFeed(host(), MESH, ahead=2)
    with jax.transfer_guard("disallow"):
        take(feed, 3)
