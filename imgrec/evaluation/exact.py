"""Every example of a split exactly once, at any batch size and any number of devices.

Batches have one shape, so the last one is padded; the padding is computed and then dropped
by its mask, and the positions that come back are counted against the split. An evaluation
that lost or repeated an example is no evaluation: it raises.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int

from imgrec.evaluation.predictions import Predictions

# Batches whose logits have been asked for but not fetched: enough to keep the device at work
# while the host prepares the next one, few enough that their images fit beside the model.
LOOK_AHEAD = 2


def gather(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Whole arrays on the host of every process, whatever shards this process holds."""
    if jax.process_count() == 1:
        return jax.device_get(dict(arrays))
    return multihost_utils.process_allgather(dict(arrays), tiled=True)


def over_split(
    compute: Callable[[Any, Mapping[str, Array]], Mapping[str, Array]],
    variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    n: int,
    to_device: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]],
    gather: Callable[[Mapping[str, Array]], Mapping[str, np.ndarray]] = gather,
) -> dict[str, np.ndarray]:
    """What a function of batches says of a whole split, in the order of its examples.

    Args:
      compute: compute(variables, batch) -> arrays whose first axis is the batch's, jitted.
      variables: of the model.
      batches: one pass over the split, of this process's part of each batch: image
        uint8[B, H, W, C], label int32[B], index int64[B] and mask bool[B], which is False on
        padding.
      n: number of examples in the split.
      to_device: places the arrays of such a batch on the mesh, all with the same sharding.
      gather: brings a dictionary of device arrays to the host, whole.

    Returns:
      The computed arrays, with "index" and "label" beside them.

    Raises:
      RuntimeError: an example is missing, came twice, or is not of this split.
    """
    fetched: list[dict[str, np.ndarray]] = []
    pending: deque[dict[str, Array]] = deque()

    def fetch() -> None:
        rows = dict(gather(pending.popleft()))
        real = rows.pop("mask")
        fetched.append({name: rows[name][real] for name in rows})

    for batch in batches:
        # The positions travel with the images, so that both come back in one order. They
        # become int32 openly here, as JAX would make them without a word.
        placed = to_device({**batch, "index": batch["index"].astype(np.int32)})
        kept = {name: placed[name] for name in ("index", "label", "mask")}
        pending.append({**compute(variables, placed), **kept})
        if len(pending) > LOOK_AHEAD:
            fetch()
    while pending:
        fetch()

    if not fetched:
        raise RuntimeError(f"There was no batch to evaluate; the split has {n} examples.")
    rows = {name: np.concatenate([part[name] for part in fetched]) for name in fetched[0]}
    _check_complete(rows["index"], n)
    order = np.argsort(rows["index"])
    return {name: values[order] for name, values in rows.items()}


def predict_split(
    predict: Callable[[Any, Array], Array],
    variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    n: int,
    to_device: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]],
    gather: Callable[[Mapping[str, Array]], Mapping[str, np.ndarray]] = gather,
) -> Predictions:
    """The logits of a whole split, by `over_split`.

    Args:
      predict: predict(variables, images: uint8[B, H, W, C]) -> logits[B, classes], jitted.
      variables: of the model.
      batches: as of `over_split`, and so are the others.
      n: number of examples in the split.
      to_device: places a batch on the mesh.
      gather: brings arrays to the host.
    """
    rows = over_split(
        lambda variables, batch: {"logits": predict(variables, batch["image"])},
        variables,
        batches,
        n=n,
        to_device=to_device,
        gather=gather,
    )
    return of_rows(rows)


def of_rows(rows: Mapping[str, np.ndarray]) -> Predictions:
    """The predictions among what `over_split` returned, in the types that are saved."""
    return Predictions(
        index=rows["index"].astype(np.int64),
        label=rows["label"].astype(np.int32),
        logits=rows["logits"].astype(np.float32),
    )


def _check_complete(index: Int[np.ndarray, " examples"], n: int) -> None:
    """Refuses anything but a permutation of range(n)."""
    outside = np.unique(index[(index < 0) | (index >= n)])
    counts = np.bincount(index[(index >= 0) & (index < n)], minlength=n)
    faults = {
        "missing": np.flatnonzero(counts == 0),
        "repeated": np.flatnonzero(counts > 1),
        "not of the split": outside,
    }
    found = []
    for fault, which in faults.items():
        if len(which):
            examples = ", ".join(map(str, which[:5])) + (", ..." if len(which) > 5 else "")
            found.append(f"{len(which)} {fault} ({examples})")
    if found:
        raise RuntimeError(
            f"The batches were to hold each of the {n} examples of the split once, by the "
            f"positions 0 to {n - 1} in `index`: {'; '.join(found)}."
        )
