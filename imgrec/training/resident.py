"""The training set whole on the device: batches are gathered inside the compiled step.

The same examples in the same order as `DeviceFeed` brings from the host, bit for bit, without
the host: what it sends are the number of the first slot and, once an epoch, the epoch's order.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from imgrec.data import Dataset
from imgrec.data.pipeline import Orders
from imgrec.errors import UserError
from imgrec.training import mesh as meshes

_SHARE = 0.25  # of a device's memory that "auto" gives to the training set
_HOST_MEMORY_SHARE = 0.1  # likewise of the host's, where the device is the CPU

Handle = Mapping[str, Any]


def decide(mode: str, dataset: Dataset, mesh: Mesh) -> tuple[bool, str]:
    """Whether the training set is to live on the device, and one line that says why.

    Args:
      mode: `config.data.resident`.
      dataset: whose training split it is about.
      mesh: whose devices would each hold all of it.

    Raises:
      UserError: "on" for images that are drawn anew every time.
    """
    source = dataset.train.source
    size = nbytes(dataset)
    said = f"{size / 1e6:,.1f} MB of training images"
    if mode == "off":
        return False, "batches from the host (data.resident is off)"
    if source.residency == "random":
        if mode == "on":
            raise UserError(
                "config.data.resident='on' keeps one version of each image, and "
                "config.data.crop='inception' cuts a new one every time. Set "
                "--config.data.crop=center, or --config.data.resident=off."
            )
        return False, "batches from the host (images are cropped anew every time)"
    if mode == "on":
        return True, f"resident: {said} on the device (data.resident is on)"
    if source.residency != "memory":
        return False, "batches from the host (images are read as they are needed)"
    limit = _limit(mesh)
    if size > limit:
        return False, f"batches from the host ({said}, more than {limit / 1e6:,.1f} MB)"
    return True, f"resident: {said} on the device, of at most {limit / 1e6:,.1f} MB"


def nbytes(dataset: Dataset) -> int:
    """Size of the training images as uint8."""
    return len(dataset.train) * int(np.prod(dataset.info.image_shape))


def _limit(mesh: Mesh) -> float:
    device = mesh.local_devices[0]
    memory = device.memory_stats() or {}
    if "bytes_limit" in memory:
        return _SHARE * memory["bytes_limit"]
    # The devices of a simulated mesh share the host's memory.
    return _HOST_MEMORY_SHARE * host_memory() / len(mesh.local_devices)


def host_memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8 * 2**30


def epochs_held(batch_size: int, steps: int, epoch_length: int) -> int:
    """Most epochs that the slots of one call of so many steps can touch."""
    return -(-batch_size * steps // epoch_length) + 1


class ResidentFeed:
    """An endless, checkpointable iterator of handles that `take` turns into batches.

    Its states are those of `DeviceFeed`: a run may go on with either.
    """

    def __init__(
        self, dataset: Dataset, mesh: Mesh, *, batch_size: int, seed: int, steps_per_call: int = 1
    ):
        """Brings the training set to the devices, whole to each of them.

        Args:
          dataset: whose training split is meant.
          mesh: of the run.
          batch_size: of the global batch.
          seed: decides the order of every epoch.
          steps_per_call: most steps that one handle is asked to last for.
        """
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        split = dataset.train
        whole = split.gather(np.arange(len(split)))
        self._source = {name: self._put(whole[name]) for name in ("image", "label")}
        self._orders = Orders(dataset.sampling, seed)
        self._epoch_length = len(dataset.sampling)
        self._batch_size = batch_size
        self._epochs_held = epochs_held(batch_size, steps_per_call, self._epoch_length)
        self._next = 0
        self._epoch = -1
        self._order: jax.Array | None = None

    def __iter__(self) -> "ResidentFeed":
        return self

    def __next__(self) -> Handle:
        return self.take_steps(1)

    def take_steps(self, steps: int) -> Handle:
        """The handle of the next `steps` batches."""
        epoch, offset = divmod(self._next * self._batch_size, self._epoch_length)
        if epoch != self._epoch:
            held = [self._orders.epoch(epoch + i) for i in range(self._epochs_held)]
            self._order = self._put(np.concatenate(held).astype(np.int32))
            self._epoch = epoch
        self._next += steps
        return {
            "source": self._source,
            "order": self._order,
            "offset": self._put(np.int32(offset)),
        }

    def get_state(self) -> bytes:
        """The position after the last batch handed out."""
        return json.dumps({"next_index": self._next}).encode()

    def set_state(self, state: bytes) -> None:
        """Continues after the batch that `state` was taken at."""
        self._next = int(json.loads(state)["next_index"])

    def start_prefetch(self) -> None:
        """Called by Grain after a restore; there is nothing to fetch."""

    def close(self) -> None:
        """Nothing is open."""

    def _put(self, value: Any) -> jax.Array:
        value = np.asarray(value)
        return meshes.put(value, self._everywhere, value.shape)


def take(handle: Handle, step: Int[Array, ""] | int, batch_size: int, mesh: Mesh) -> dict[str, Any]:
    """Batch number `step` of a handle, cut over the mesh as the host's batches are; for jit."""
    start = handle["offset"] + step * batch_size
    index = jax.lax.dynamic_slice(handle["order"], (start,), (batch_size,))
    # Cut before the gather, so that each device fetches its own rows from its own copy.
    index = jax.lax.with_sharding_constraint(index, NamedSharding(mesh, meshes.BATCH))
    source = handle["source"]
    return {
        "image": source["image"].at[index].get(mode="promise_in_bounds"),
        "label": source["label"].at[index].get(mode="promise_in_bounds"),
        "index": index,
        "mask": jnp.ones(batch_size, jnp.bool_),
    }
