"""From a split to batches, with Grain: an endless stream to train on, one pass to evaluate on.

Batch k of the training stream is a pure function of (seed, k): the epochs' permutations are
laid end to end and cut into batches that run on across an epoch's end. So the state of the
iterator is one step count, resuming costs the same at any step, and neither threads nor hosts
change what a batch holds.
"""

import sys
import threading
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int64

from imgrec.data import order
from imgrec.data.dataset import Batch, Split
from imgrec.errors import UserError


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    threads: int = 4,
    prefetch: int = 8,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
    """The endless training stream; its `get_state` and `set_state` count batches.

    Args:
      split: what to train on.
      batch_size: of the global batch, over all processes.
      seed: decides the order of every epoch.
      threads: that gather batches, each a whole batch.
      prefetch: batches held ready in host memory.
      process_index: which rows of the global batch this host gets: of `process_count` equal
        runs of rows, the one with this number.
      process_count: number of hosts.

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
    return _iterate(_TrainBatches(split, batch_size, rows, seed), threads, prefetch)


def eval_batches(
    split: Split,
    *,
    batch_size: int,
    threads: int = 4,
    prefetch: int = 8,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
    """One pass over a split: every example exactly once, in order.

    The last batch is filled up with padding (mask False, index -1, image and label 0), so all
    processes yield equally many batches of equal shape.

    Args:
      split: what to evaluate on.
      batch_size: of the global batch, over all processes.
      threads: that gather batches, each a whole batch.
      prefetch: batches held ready in host memory.
      process_index: as in `train_batches`.
      process_count: number of hosts.

    Returns:
      An iterator over batches as in `train_batches`.

    Raises:
      UserError: the hosts cannot share a batch equally.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    return _iterate(_EvalBatches(split, batch_size, rows), threads, prefetch)


def epoch_order(seed: int, epoch: int, n: int) -> Int64[np.ndarray, "{n}"]:
    """The order in which an epoch visits the positions of a split of `n` examples."""
    return order.permutation(n, (seed, epoch))


@runtime_checkable
class _Batches(Protocol):
    """What Grain reads: element k is batch k, gathered whole.

    Twice as fast as letting Grain read one record at a time and batch them.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, k: int) -> Batch: ...


class _TrainBatches:
    def __init__(self, split: Split, batch_size: int, rows: slice, seed: int):
        self._split = split
        self._batch_size = batch_size
        self._rows = rows
        self._seed = seed
        self._lock = threading.Lock()
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return sys.maxsize // self._batch_size

    def __getitem__(self, k: int) -> Batch:
        n = len(self._split)
        start = k * self._batch_size + self._rows.start
        stop = k * self._batch_size + self._rows.stop
        positions = np.concatenate(
            [
                self._order(epoch)[max(start - epoch * n, 0) : stop - epoch * n]
                for epoch in range(start // n, (stop - 1) // n + 1)
            ]
        )
        mask = np.ones(len(positions), np.bool_)
        return {**self._split.gather(positions), "index": positions, "mask": mask}

    def _order(self, epoch: int) -> np.ndarray:
        # The lock makes threads that meet at the start of an epoch wait for one permutation
        # instead of each computing it; two are kept because batches straddle the boundary.
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) >= 2:
                    del self._orders[next(iter(self._orders))]
                self._orders[epoch] = epoch_order(self._seed, epoch, len(self._split))
            return self._orders[epoch]


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


def _iterate(batches: _Batches, threads: int, prefetch: int) -> grain.DatasetIterator[Batch]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))
