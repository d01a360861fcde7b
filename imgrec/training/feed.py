"""Batches on the device, a few ahead of the step that takes them.

The feed's state is that of the last batch it handed out, not of the last it fetched: so a
checkpoint between two steps resumes with exactly the next batch.
"""

import collections
import json
from typing import Any

import jax
from jax.sharding import Mesh

from imgrec.data.pipeline import Stream
from imgrec.training import mesh as meshes


class DeviceFeed:
    """An endless, checkpointable iterator of global batches on a mesh.

    It has the interface that `grain.checkpoint.CheckpointSave` and `CheckpointRestore` take.
    """

    def __init__(self, batches: Stream, mesh: Mesh, *, ahead: int):
        """Wraps an iterator of host batches; `ahead` of them are held on the device."""
        self._batches = batches
        self._mesh = mesh
        self._ahead = ahead
        self._queue: collections.deque[tuple[dict[str, jax.Array], Any]] = collections.deque()
        self._state = batches.get_state()

    def __iter__(self) -> "DeviceFeed":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._queue) < self._ahead:
            on_device = meshes.put_batch(self._mesh, next(self._batches))
            self._queue.append((on_device, self._batches.get_state()))
        batch, self._state = self._queue.popleft()
        return batch

    def get_state(self) -> bytes:
        """The position after the last batch handed out."""
        return json.dumps(self._state).encode()

    def set_state(self, state: bytes) -> None:
        """Continues after the batch that `state` was taken at."""
        self._queue.clear()
        self._state = json.loads(state)
        self._batches.set_state(self._state)

    def start_prefetch(self) -> None:
        """Called by Grain after a restore; the next batch starts the prefetch here."""

    def take_steps(self, steps: int) -> dict[str, jax.Array]:
        """The next batch; calls of several steps are for a resident training set."""
        assert steps == 1
        return next(self)

    def close(self) -> None:
        """Ends the threads and processes that read ahead."""
        self._queue.clear()
        self._batches.close()
