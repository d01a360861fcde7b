"""From a split to batches, with Grain: an endless stream to train on, one pass to evaluate on.

Batch k of the training stream is a pure function of (seed, k): the epochs' permutations are
laid end to end and cut into batches that run on across an epoch's end. So the state of the
stream is one step count, resuming costs the same at any step, and neither threads, worker
processes nor hosts change what a batch holds: a run may go on with other numbers of them.
"""

import sys
import threading
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from jaxtyping import Int64, UInt64

from imgrec.data import order
from imgrec.data.dataset import Batch, Split
from imgrec.data.sampling import Sampling, shuffled
from imgrec.errors import UserError

_WORDS = 2**63 + 2**62  # stream of the Philox key that views to train on are drawn from


class WorkerDiedError(RuntimeError):
    """A process that reads data ended before its time."""

    def __init__(self, said: str):
        """`said` is what Grain reports of it."""
        code = said.partition("exit code ")[2].partition(".")[0]
        killed = " (killed, most often for want of memory)" if code == "-9" else ""
        super().__init__(
            f"A worker process that reads data ended with exit code {code}{killed}. Fewer of them "
            "(--config.data.workers) take less memory and do not change what is computed."
        )


class Stream:
    """An iterator over batches whose `get_state` and `set_state` count batches.

    The count is all there is to save, so a stream goes on under any number of workers.
    """

    def __init__(self, batches: "Batches", *, threads: int, prefetch: int, workers: int = 0):
        """Reads nothing yet.

        Args:
          batches: what to read; with workers it is pickled into them.
          threads: that gather batches, each a whole batch; with workers, in each of them.
          prefetch: batches held ready in host memory.
          workers: processes beside this one; 0 for none.
        """
        self._batches = batches
        self._read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        self._workers = workers
        self._prefetch = prefetch
        self._next = 0
        self._iterator: grain.DatasetIterator[Batch] | None = None

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        try:
            batch = next(self._iterator)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):  # Grain's words for a dead worker
                raise
            raise WorkerDiedError(str(error)) from error
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """{"next_index": number of the batch that comes next}."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on before the batch that the state names."""
        self.close()
        self._next = int(state["next_index"])

    def close(self) -> None:
        """Ends the threads and worker processes; the next batch would start them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> grain.DatasetIterator[Batch]:
        rest = grain.MapDataset.source(_From(self._batches, self._next))
        dataset = rest.to_iter_dataset(self._read)
        if self._workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain asks absl's flags, and needs none of ours
            each = -(-self._prefetch // self._workers)
            options = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=each)
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    threads: int = 4,
    prefetch: int = 8,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    sampling: Sampling | None = None,
) -> Stream:
    """The endless training stream; its `get_state` and `set_state` count batches.

    Args:
      split: what to train on.
      batch_size: of the global batch, over all processes.
      seed: decides the order of every epoch.
      threads: that gather batches, each a whole batch.
      prefetch: batches held ready in host memory.
      workers: processes that read beside this one; 0 for threads alone.
      process_index: which rows of the global batch this host gets: of `process_count` equal
        runs of rows, the one with this number.
      process_count: number of hosts.
      sampling: which example comes when; by default all of them once an epoch, shuffled.

    Returns:
      An iterator over {"image": uint8[n, H, W, C], "label": int32[n], "index": int64[n],
      "mask": bool[n]} with n = batch_size / process_count. `index` is the position in the
      split; `mask` is True throughout, as every batch is full.

    Raises:
      UserError: the split is empty, or the hosts cannot share a batch equally.
    """
    if len(split) == 0:
        raise UserError(f"The split {split.name!r} is empty, so there is nothing to train on.")
    rows = _local_rows(batch_size, process_index, process_count)
    batches = TrainBatches(split, batch_size, rows, seed, sampling or shuffled(len(split)))
    return Stream(batches, threads=threads, prefetch=prefetch, workers=workers)


def eval_batches(
    split: Split,
    *,
    batch_size: int,
    threads: int = 4,
    prefetch: int = 8,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Stream:
    """One pass over a split: every example exactly once, in order.

    The last batch is filled up with padding (mask False, index -1, image and label 0), so all
    processes yield equally many batches of equal shape.

    Args:
      split: what to evaluate on.
      batch_size: of the global batch, over all processes.
      threads: that gather batches, each a whole batch.
      prefetch: batches held ready in host memory.
      workers: as in `train_batches`.
      process_index: as in `train_batches`.
      process_count: number of hosts.

    Returns:
      An iterator over batches as in `train_batches`.

    Raises:
      UserError: the hosts cannot share a batch equally.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    batches = _EvalBatches(split, batch_size, rows)
    return Stream(batches, threads=threads, prefetch=prefetch, workers=workers)


@runtime_checkable
class Batches(Protocol):
    """What Grain reads: element k is batch k, gathered whole.

    Twice as fast as letting Grain read one record at a time and batch them.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, k: int) -> Batch: ...


class TrainBatches:
    """Batch k of the endless stream, for any k; it may be pickled into another process."""

    def __init__(self, split: Split, batch_size: int, rows: slice, seed: int, sampling: Sampling):
        """`rows` of each global batch of `batch_size` are this host's."""
        self._split = split
        self._batch_size = batch_size
        self._rows = rows
        self._orders = Orders(sampling, seed)
        self._seed = seed

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size

    def __getitem__(self, k: int) -> Batch:
        first = k * self._batch_size
        positions = self._orders.positions(first + self._rows.start, first + self._rows.stop)
        words = _words(self._seed, k, self._batch_size)[self._rows]
        mask = np.ones(len(positions), np.bool_)
        return {**self._split.gather(positions, words), "index": positions, "mask": mask}


class Orders:
    """The positions that slots of the stream hold; safe to ask from several threads."""

    def __init__(self, sampling: Sampling, seed: int):
        """Computes nothing yet."""
        self._sampling = sampling
        self._seed = seed
        self._lock = threading.Lock()
        self._epochs: dict[int, np.ndarray] = {}

    def positions(self, start: int, stop: int) -> Int64[np.ndarray, "slots"]:
        """Those of the slots from `start` up to `stop`."""
        n = len(self._sampling)
        return np.concatenate(
            [
                self.epoch(epoch)[max(start - epoch * n, 0) : stop - epoch * n]
                for epoch in range(start // n, (stop - 1) // n + 1)
            ]
        )

    def epoch(self, epoch: int) -> Int64[np.ndarray, "examples"]:
        """Those of a whole epoch."""
        # The lock makes threads that meet at the start of an epoch wait for one permutation
        # instead of each computing it; two are kept because batches straddle the boundary.
        with self._lock:
            if epoch not in self._epochs:
                while len(self._epochs) >= 2:
                    del self._epochs[next(iter(self._epochs))]
                self._epochs[epoch] = self._sampling.epoch(self._seed, epoch)
            return self._epochs[epoch]

    def __getstate__(self) -> tuple[Sampling, int]:
        return self._sampling, self._seed

    def __setstate__(self, state: tuple[Sampling, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _words(seed: int, k: int, batch_size: int) -> UInt64[np.ndarray, "{batch_size}"]:
    """One random word for every example of global batch k."""
    return order.words(batch_size, (seed, _WORDS + k))


class _EvalBatches:
    def __init__(self, split: Split, batch_size: int, rows: slice):
        self._split = split
        self._batch_size = batch_size
        self._rows = rows

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __getitem__(self, k: int) -> Batch:
        start = k * self._batch_size
        positions = np.arange(start + self._rows.start, start + self._rows.stop)
        mask = positions < len(self._split)
        # Padding is read as position 0 and then blanked: it needs the shape of a real image,
        # and a host may have no example of its own in the last batch.
        batch = self._split.gather(np.where(mask, positions, 0))
        if not mask.all():
            batch["image"][~mask] = 0
            batch["label"][~mask] = 0
        return {**batch, "index": np.where(mask, positions, -1), "mask": mask}


def _local_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"The batch size {batch_size} cannot be shared equally by {process_count} processes; "
            f"set --config.data.batch_size to a multiple of {process_count}."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"There is no process {process_index} of {process_count}.")
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


class _From:
    """Batches from a number on, counted from 0."""

    def __init__(self, batches: Batches, first: int):
        self._batches = batches
        self._first = first

    def __len__(self) -> int:
        return max(0, len(self._batches) - self._first)

    def __getitem__(self, k: int) -> Batch:
        return self._batches[self._first + k]
