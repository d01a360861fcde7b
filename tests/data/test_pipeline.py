import contextlib
import multiprocessing
import os
import signal

import numpy as np
import pytest

from imgrec.data import Split, order, pipeline, sampling
from imgrec.errors import UserError


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        assert all((batch[key] == other[key]).all() for key in batch)


def joined(batches, key):
    return np.concatenate([batch[key] for batch in batches])


def assert_well_formed(split, batches, rows):
    for batch in batches:
        assert {key: value.dtype for key, value in batch.items()} == {
            "image": np.uint8,
            "label": np.int32,
            "index": np.int64,
            "mask": np.bool_,
        }
        assert batch["image"].shape == (rows, 2, 2, 3)
        assert batch["label"].shape == batch["index"].shape == batch["mask"].shape == (rows,)
        real = batch["mask"]
        assert (batch["label"][real] == split.labels()[batch["index"][real]]).all()
        assert (batch["image"][real] == batch["label"][real][:, None, None, None]).all()


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (10, 5), (7, 3), (3, 8), (1, 5), (20, 20)])
def test_every_epoch_visits_every_example_once(make_split, n, batch_size):
    split = make_split(n)
    batches = take(pipeline.train_batches(split, batch_size=batch_size, seed=1), 3 * n)
    assert_well_formed(split, batches, batch_size)
    assert joined(batches, "mask").all()
    indices = joined(batches, "index").reshape(-1, n)
    assert len(indices) == 3 * batch_size
    for epoch, visited in enumerate(indices):
        assert sorted(visited) == list(range(n))
        assert (visited == order.permutation(n, (1, epoch))).all()


def test_epochs_and_seeds_differ():
    orders = {tuple(sampling.shuffled(30).epoch(s, e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("prefetch", [1, 16])
def test_threads_change_nothing(make_split, threads, prefetch):
    split = make_split(11)
    options = {"threads": threads, "prefetch": prefetch}
    reference = take(pipeline.train_batches(split, batch_size=4, seed=0), 20)
    assert_equal(
        take(pipeline.train_batches(split, batch_size=4, seed=0, **options), 20), reference
    )
    reference = list(pipeline.eval_batches(split, batch_size=4))
    assert_equal(list(pipeline.eval_batches(split, batch_size=4, **options)), reference)


@pytest.mark.parametrize("process_count", [2, 3, 6])
def test_processes_share_the_global_batch(make_split, process_count):
    split = make_split(10)

    def shares(stream):
        return [list(stream(p)) for p in range(process_count)]

    def assert_adds_up(shares, whole):
        for parts, batch in zip(zip(*shares, strict=True), whole, strict=True):
            for key in batch:
                assert (np.concatenate([part[key] for part in parts]) == batch[key]).all()

    def train(p, count=process_count):
        return take(
            pipeline.train_batches(
                split, batch_size=6, seed=2, process_index=p, process_count=count
            ),
            9,
        )

    def evaluate(p, count=process_count):
        return pipeline.eval_batches(split, batch_size=6, process_index=p, process_count=count)

    assert_adds_up(shares(train), train(0, 1))
    assert_adds_up(shares(evaluate), list(evaluate(0, 1)))


@pytest.mark.parametrize("stopped_after", [0, 1, 5])
def test_state_restores_the_next_batch(make_split, stopped_after):
    split = make_split(7)
    iterator = pipeline.train_batches(split, batch_size=3, seed=0)
    take(iterator, stopped_after)
    state = iterator.get_state()
    rest = take(iterator, 10)

    fresh = pipeline.train_batches(split, batch_size=3, seed=0)
    fresh.set_state(state)
    assert_equal(take(fresh, 10), rest)
    # Also where batches beyond the state are already being prefetched.
    iterator.set_state(state)
    assert_equal(take(iterator, 10), rest)


def test_state_is_one_small_number_at_any_step(make_split):
    split = make_split(7)
    iterator = pipeline.train_batches(split, batch_size=3, seed=0)
    state = dict.fromkeys(iterator.get_state(), 10**12)
    iterator.set_state(state)
    first, rest = divmod(3 * 10**12, 7)
    expected = np.concatenate([order.permutation(7, (0, first + i)) for i in (0, 1)])
    assert (next(iterator)["index"] == expected[rest : rest + 3]).all()
    assert iterator.get_state() == dict.fromkeys(state, 10**12 + 1)


def test_an_order_is_computed_once_an_epoch(make_split, monkeypatch):
    asked = []
    original = sampling.Sampling.epoch
    monkeypatch.setattr(
        sampling.Sampling,
        "epoch",
        lambda self, seed, epoch: asked.append(epoch) or original(self, seed, epoch),
    )
    take(pipeline.train_batches(make_split(10), batch_size=3, seed=0, threads=4, prefetch=4), 26)
    assert sorted(asked) == sorted(set(asked))


def test_training_draws_one_word_an_example_that_hosts_share_out(make_split, monkeypatch):
    drawn = []
    original = Split.gather

    def gather(self, positions, words=None):
        drawn.append(None if words is None else words.tolist())
        return original(self, positions, words)

    monkeypatch.setattr(Split, "gather", gather)

    def words_of(rows, k):
        """What a host that has these rows of each batch of 6 draws for batch k."""
        drawn.clear()
        pipeline.TrainBatches(make_split(7), 6, rows, 5, sampling.shuffled(7))[k]
        return drawn[0]

    whole = [words_of(slice(0, 6), k) for k in (0, 1)]
    for k in (0, 1):
        assert [words_of(slice(i, i + 3), k) for i in (0, 3)] == [whole[k][:3], whole[k][3:]]
    assert len({word for words in whole for word in words}) == 12
    drawn.clear()
    list(pipeline.eval_batches(make_split(4), batch_size=4))
    assert drawn == [None]


def test_a_stream_goes_on_under_another_number_of_hosts(make_split):
    options = {"batch_size": 4, "seed": 2, "threads": 1}
    expected = take(pipeline.train_batches(make_split(10), **options), 9)
    alone = pipeline.train_batches(make_split(10), **options)
    take(alone, 5)
    shared = [
        pipeline.train_batches(make_split(10), **options, process_index=p, process_count=2)
        for p in (0, 1)
    ]
    for stream in shared:
        stream.set_state(alone.get_state())
    for batch in expected[5:8]:
        halves = [next(stream) for stream in shared]
        assert (joined(halves, "index") == batch["index"]).all()
        assert (joined(halves, "image") == batch["image"]).all()
    alone.set_state(shared[0].get_state())
    assert_equal([next(alone)], expected[8:])


@pytest.mark.slow  # processes that import the package take seconds to start
def test_workers_change_nothing_and_a_stream_goes_on_under_any_number_of_them(make_split):
    options = {"batch_size": 4, "seed": 2, "threads": 1}

    def stream(workers, state=None):
        made = pipeline.train_batches(make_split(10), **options, workers=workers)
        if state is not None:
            made.set_state(state)
        return made

    with contextlib.closing(stream(0)) as alone:
        expected = take(alone, 13)
    state = None
    for workers, first, last in ((2, 0, 5), (3, 5, 8), (0, 8, 10), (1, 10, 13)):
        with contextlib.closing(stream(workers, state)) as workers_stream:
            assert_equal(take(workers_stream, last - first), expected[first:last])
            state = workers_stream.get_state()
    evaluated = pipeline.eval_batches(make_split(10), batch_size=4, workers=2)
    assert_equal(list(evaluated), list(pipeline.eval_batches(make_split(10), batch_size=4)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies_is_reported_with_what_to_do(make_split, monkeypatch):
    stream = pipeline.train_batches(make_split(10), batch_size=4, seed=0, workers=2, prefetch=2)
    next(stream)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(pipeline.WorkerDiedError, match=r"exit code -9 .*--config.data.workers"):
        take(stream, 100)
    stream.set_state({"next_index": 1})  # the rest can be read as if nothing had happened
    with contextlib.closing(pipeline.train_batches(make_split(10), batch_size=4, seed=0)) as alone:
        assert_equal([next(stream)], take(alone, 2)[1:])
    stream.close()


@pytest.mark.parametrize(
    ("n", "batch_size", "process_count"),
    [(10, 4, 1), (8, 4, 1), (3, 8, 1), (10, 1, 1), (9, 8, 4), (1, 8, 8)],
)
def test_evaluation_sees_every_example_once_in_order(make_split, n, batch_size, process_count):
    split = make_split(n)
    rows = batch_size // process_count
    streams = [
        list(
            pipeline.eval_batches(
                split, batch_size=batch_size, process_index=p, process_count=process_count
            )
        )
        for p in range(process_count)
    ]
    seen = []
    for batches in zip(*streams, strict=True):
        assert_well_formed(split, batches, rows)
        index, mask = joined(batches, "index"), joined(batches, "mask")
        seen.extend(index[mask].tolist())
        assert (index[~mask] == -1).all()
        assert (joined(batches, "image")[~mask] == 0).all()
        assert (joined(batches, "label")[~mask] == 0).all()
    assert seen == list(range(n))


def test_evaluation_of_nothing_is_no_batch(make_split):
    assert list(pipeline.eval_batches(make_split(0), batch_size=4)) == []


def test_training_on_nothing_is_refused(make_split):
    with pytest.raises(UserError, match="'train' is empty"):
        pipeline.train_batches(make_split(0), batch_size=4, seed=0)


@pytest.mark.parametrize("stream", ["train", "eval"])
def test_a_batch_that_processes_cannot_share_is_refused(make_split, stream):
    options = {"batch_size": 10, "process_count": 4}
    with pytest.raises(UserError, match=r"batch size 10 .* 4 processes; .* multiple of 4"):
        if stream == "train":
            pipeline.train_batches(make_split(5), seed=0, **options)
        else:
            pipeline.eval_batches(make_split(5), **options)
    with pytest.raises(ValueError, match="no process 2 of 2"):
        pipeline.eval_batches(make_split(5), batch_size=4, process_index=2, process_count=2)
