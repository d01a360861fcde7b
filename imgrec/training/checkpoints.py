"""Checkpoints by Orbax: asynchronous, atomic, the latest few and the best by validation.

A checkpoint of the latest kind carries all that a run needs to go on bit for bit: the train
state, the position in the data, the open metric window and the format version. The best one
carries the variables that the test split sees, which are the last where `eval.select` says so.
Restoring goes to the shardings of the mesh at hand, whatever mesh saved it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint import args

from imgrec.errors import UserError
from imgrec.training.feed import DeviceFeed
from imgrec.training.resident import ResidentFeed
from imgrec.training.state import TrainState
from imgrec.training.window import DivergenceError

FORMAT = 1


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, *, keep: int):
        """Opens the folder, and clears away what a killed run left half-written.

        Args:
          folder: of the run; `checkpoints/` is made inside it.
          keep: how many of the latest checkpoints stay.
        """
        self.folder = folder.absolute() / "checkpoints"
        self._latest = _manager(self.folder / "latest", keep)
        self._best = _manager(self.folder / "best", 1)

    def save(
        self,
        step: int,
        state: TrainState,
        feed: DeviceFeed | ResidentFeed,
        window: list[dict[str, float]],
    ) -> None:
        """Saves the whole state of the run; returns once it is copied, before it is written."""
        if step in self._latest.all_steps():
            return
        self._latest.save(
            step,
            args=args.Composite(
                state=args.StandardSave(_saveable(state)),
                data=grain.checkpoint.CheckpointSave(feed),
                meta=args.JsonSave({"format": FORMAT, "window": window}),
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._latest.latest_step()

    def restore(
        self, like: TrainState, shardings: TrainState, feed: DeviceFeed | ResidentFeed
    ) -> tuple[TrainState, list[dict[str, float]]]:
        """The newest state and its metric window; `feed` is set to its place in the data.

        Args:
          like: shapes and dtypes of the state.
          shardings: where its leaves are to live.
          feed: to be set back, or forward.

        Raises:
          UserError: saved by another format version, or for another model.
        """
        step = self._latest.latest_step()
        meta = self._latest.restore(step, args=args.Composite(meta=args.JsonRestore()))["meta"]
        check_format(meta.get("format"), self.folder)
        target = jax.tree.map(_placed, _saveable(like), _saveable(shardings))
        try:
            restored = self._latest.restore(
                step, args=args.Composite(state=args.StandardRestore(target))
            )
        except (ValueError, KeyError) as error:
            raise UserError(
                f"The checkpoint of step {step} in {self.folder} does not fit this model: {error}"
            ) from error
        feed.set_state(_position(self.folder / "latest" / str(step) / "data"))
        feed.start_prefetch()
        return _restored(restored["state"], like), meta["window"]

    def save_best(self, step: int, value: float, variables: dict[str, Any]) -> None:
        """Saves the variables if `value` beats the best so far.

        A resumed run may pass the step of its own earlier best again, with the same value:
        that one stays.
        """
        best = self.best()
        if best is not None and (value <= best[1] or step == best[0]):
            return
        self._best.save(
            step,
            args=args.Composite(
                variables=args.StandardSave(variables),
                meta=args.JsonSave({"format": FORMAT, "value": value}),
            ),
        )

    def best(self) -> tuple[int, float] | None:
        """(step, value) of the best checkpoint, or None before there is one."""
        self._best.wait_until_finished()
        step = self._best.latest_step()
        if step is None:
            return None
        meta = self._best.restore(step, args=args.Composite(meta=args.JsonRestore()))["meta"]
        return step, meta["value"]

    def restore_best(self, like: dict[str, Any], shardings: dict[str, Any]) -> dict[str, Any]:
        """The best variables."""
        target = jax.tree.map(_placed, like, shardings)
        step = self._best.latest_step()
        return self._best.restore(
            step, args=args.Composite(variables=args.StandardRestore(target))
        )["variables"]

    def wait(self) -> None:
        """Blocks until all that was saved is on the disk."""
        self._latest.wait_until_finished()
        self._best.wait_until_finished()

    @contextlib.contextmanager
    def named_in_divergence(self) -> Iterator[None]:
        """Adds the way back to a DivergenceError: the last good checkpoint."""
        try:
            yield
        except DivergenceError as error:
            self.wait()
            step = self.latest_step
            good = f"is {self.folder / 'latest' / str(step)}" if step else "was not saved yet"
            error.add_note(
                f"The last good checkpoint {good}. Lower optimizer.learning_rate, lengthen "
                "schedule.warmup or set optimizer.clip_norm, and start with another --workdir."
            )
            raise

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._latest.close()
        self._best.close()


def check_format(found: Any, folder: Path) -> None:
    """Refuses a run folder that another version of this layout wrote."""
    if found != FORMAT:
        raise UserError(
            f"{folder} was written in format version {found}; this imgrec reads version {FORMAT}. "
            "Go on with the imgrec that wrote it, or start anew with another --workdir."
        )


def _manager(folder: Path, keep: int) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            # The latest and the best are often written at the same time; processes that wait for
            # one another must not take one for the other.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=folder.name
            ),
        ),
    )


def _position(folder: Path) -> bytes:
    """The position in the data, which is one number for all processes.

    Grain writes a file for each process, and reads back only those of as many processes.
    """
    found = {path.read_bytes() for path in folder.glob("process_*-of-*.json")}
    if len(found) != 1:
        raise UserError(
            f"The position in the data cannot be read from {folder}: {len(found)} different ones "
            "are there. Remove this checkpoint to go on from the one before."
        )
    return found.pop()


def _saveable(state: TrainState) -> dict[str, Any]:
    """The state as a dictionary without empty parts, which Orbax does not store."""
    tree = {
        "step": state.step,
        "params": state.params,
        "model_state": state.model_state,
        "opt_state": state.opt_state,
        "average": state.average,
    }
    return {name: value for name, value in tree.items() if jax.tree.leaves(value)}


def _restored(tree: dict[str, Any], like: TrainState) -> TrainState:
    return TrainState(
        step=tree["step"],
        params=tree["params"],
        model_state=tree.get("model_state", like.model_state),
        opt_state=tree.get("opt_state", like.opt_state),
        average=tree.get("average"),
    )


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
