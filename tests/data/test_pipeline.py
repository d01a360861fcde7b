import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imgrec.data import pipeline
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
        assert (visited == pipeline.epoch_order(1, epoch, n)).all()


def test_epochs_and_seeds_differ():
    orders = {tuple(pipeline.epoch_order(s, e, 30)) for s in range(3) for e in range(3)}
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
    expected = np.concatenate([pipeline.epoch_order(0, first + i, 7) for i in (0, 1)])
    assert (next(iterator)["index"] == expected[rest : rest + 3]).all()
    assert iterator.get_state() == dict.fromkeys(state, 10**12 + 1)


def test_state_passes_through_an_orbax_composite(make_split, tmp_path):
    split = make_split(7)
    iterator = pipeline.train_batches(split, batch_size=3, seed=0)
    take(iterator, 4)
    save = ocp.args.Composite(
        state=ocp.args.StandardSave({"step": np.array(4)}),
        data=grain.checkpoint.CheckpointSave(iterator),
    )
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(4, args=save)
        manager.wait_until_finished()
    rest = take(iterator, 6)

    fresh = pipeline.train_batches(split, batch_size=3, seed=0)
    restore = ocp.args.Composite(
        state=ocp.args.StandardRestore({"step": np.array(0)}),
        data=grain.checkpoint.CheckpointRestore(fresh),
    )
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        restored = manager.restore(4, args=restore)
    assert restored["state"]["step"] == 4
    assert_equal(take(restored["data"], 6), rest)


def test_an_order_is_computed_once_an_epoch(make_split, monkeypatch):
    asked = []
    original = pipeline.epoch_order
    monkeypatch.setattr(
        pipeline,
        "epoch_order",
        lambda seed, epoch, n: asked.append(epoch) or original(seed, epoch, n),
    )
    take(pipeline.train_batches(make_split(10), batch_size=3, seed=0, threads=4, prefetch=4), 26)
    assert sorted(asked) == sorted(set(asked))


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
