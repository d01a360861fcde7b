import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgrec.evaluation import exact

N, SHAPE, CLASSES = 53, (2, 3, 1), 4
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (N, *SHAPE), dtype=np.uint8)
LABELS = RNG.integers(0, CLASSES, N).astype(np.int32)
# Small whole numbers: sums are exact in float32, so logits can be compared bit for bit.
WEIGHTS = RNG.integers(-9, 10, (6, CLASSES)).astype(np.float32)
LOGITS = IMAGES.reshape(N, 6).astype(np.float32) @ WEIGHTS


@jax.jit
def predict(variables, images):
    return images.reshape(len(images), -1).astype(jnp.float32) @ variables


def batches(size, index):
    """The examples of these positions, the last batch padded with what must not count."""
    index = np.asarray(index, np.int64)
    for start in range(0, len(index), size):
        some = index[start : start + size]
        padding = size - len(some)
        yield {
            "image": np.concatenate([IMAGES[some % N], np.full((padding, *SHAPE), 99, np.uint8)]),
            "label": np.concatenate([LABELS[some % N], np.zeros(padding, np.int32)]),
            "index": np.concatenate([some, np.full(padding, -1)]),
            "mask": np.arange(size) < len(some),
        }


def on(devices):
    sharding = NamedSharding(
        Mesh(np.array(jax.devices()[:devices]), ("data",)), PartitionSpec("data")
    )
    return lambda batch: jax.device_put(dict(batch), sharding)


def split(batches, n=N, devices=1, **arguments):
    return exact.predict_split(predict, WEIGHTS, batches, n=n, to_device=on(devices), **arguments)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("per_device", [1, 7, 128])
def test_every_example_counts_once(devices, per_device):
    order = np.random.default_rng(1).permutation(N)
    said = split(batches(devices * per_device, order), devices=devices)
    np.testing.assert_array_equal(said.index, np.arange(N))
    np.testing.assert_array_equal(said.label, LABELS)
    np.testing.assert_array_equal(said.logits, LOGITS)
    assert (said.index.dtype, said.label.dtype, said.logits.dtype) == (
        np.int64,
        np.int32,
        np.float32,
    )


def test_a_batch_that_is_all_padding_adds_nothing():
    parts = [*batches(8, np.arange(N)), *batches(8, [])]
    nothing = {**parts[0], "mask": np.zeros(8, bool), "index": np.full(8, -1)}
    np.testing.assert_array_equal(split([*parts, nothing]).logits, LOGITS)


def test_logits_of_lower_precision_come_back_as_float32():
    def halved(variables, images):
        return predict(variables, images).astype(jnp.bfloat16)

    said = exact.predict_split(halved, WEIGHTS, batches(8, range(N)), n=N, to_device=on(1))
    assert said.logits.dtype == np.float32
    np.testing.assert_allclose(said.logits, LOGITS, rtol=1 / 128)


def test_the_device_is_kept_at_work_a_few_batches_ahead():
    events = []

    def predict_and_note(variables, images):
        events.append("predict")
        return predict(variables, images)

    def gather_and_note(arrays):
        events.append("gather")
        return exact.gather(arrays)

    exact.predict_split(
        predict_and_note,
        WEIGHTS,
        batches(10, range(N)),
        n=N,
        to_device=on(1),
        gather=gather_and_note,
    )
    ahead = [
        events[: i + 1].count("predict") - events[: i + 1].count("gather")
        for i in range(len(events))
    ]
    assert events.count("gather") == 6
    assert max(ahead) == exact.LOOK_AHEAD + 1
    assert events[:4] == ["predict", "predict", "predict", "gather"]


def test_host_batches_are_left_as_they_were():
    batch = next(batches(N, range(N)))
    before = {name: array.copy() for name, array in batch.items()}
    split([batch])
    for name, array in before.items():
        assert batch[name].dtype == array.dtype
        np.testing.assert_array_equal(batch[name], array)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (range(1, N), r"1 missing \(0\)"),
        (range(N - 1), r"1 missing \(52\)"),
        (range(0, N, 2), r"26 missing \(1, 3, 5, 7, 9, \.\.\.\)"),
        ([*range(N), 7], r"1 repeated \(7\)"),
        ([*range(N), 7, 7, 9], r"2 repeated \(7, 9\)"),
        ([*range(1, N), 5], r"1 missing \(0\); 1 repeated \(5\)"),
        (range(N + 2), r"2 not of the split \(53, 54\)"),
        ([*range(N), -1], r"1 not of the split \(-1\)"),
    ],
)
def test_a_split_that_is_not_whole_is_refused(index, message):
    with pytest.raises(RuntimeError, match=f"{N} examples of the split once.*{message}"):
        split(batches(16, index))


def test_a_padded_example_does_not_stand_in_for_a_missing_one():
    parts = list(batches(16, range(N)))
    parts[0]["mask"][3] = False
    with pytest.raises(RuntimeError, match=r"1 missing \(3\)"):
        split(parts)


def test_no_batches_are_refused():
    with pytest.raises(RuntimeError, match="no batch to evaluate; the split has 53"):
        split([])
