"""Everything about a run that can be known before it: made, checked, and not yet computed.

`plan` is where a configuration meets its data, its model and the devices at hand, and where
what cannot work is refused. The loop and the dry run both start from its result.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import UInt8

from imgrec import augment, data, durations, models, randomness, validation
from imgrec.config import Experiment
from imgrec.data import Dataset, pipeline
from imgrec.errors import UserError
from imgrec.models import attention, rematerialisation
from imgrec.native import convolution as native
from imgrec.tasks import Task, registry
from imgrec.tasks.classification import Classification
from imgrec.training import (
    freezing,
    optimizers,
    per_device_norm,
    placement,
    resident,
    resolving,
    rules,
    schedules,
    state,
    step,
    teachers,
    tensor_parallel,
    weights,
    xla,
)
from imgrec.training import mesh as meshes
from imgrec.training.feed import DeviceFeed
from imgrec.training.resident import ResidentFeed
from imgrec.training.state import TrainState
from imgrec.training.teachers import Teacher
from imgrec.transfer import heads


@dataclass(frozen=True)
class Plan:
    """A resolved experiment. All intervals are in optimizer steps."""

    experiment: Experiment
    dataset: Dataset
    mesh: Mesh
    task: Classification
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    starts: freezing.Starts  # when each parameter begins to move
    state: TrainState  # shapes only
    shardings: TrainState
    total_steps: int
    steps_per_epoch: float
    log_every: int
    eval_every: int
    checkpoint_every: int
    eval_batch_size: int
    resident: bool  # the training set lives on the device
    feeding: str  # one line on that, and why
    weights: tuple[str, ...]  # lines on what init.weights gives
    teacher: Teacher | None = None

    def initial_state(self) -> TrainState:
        """The state before the first step, made where it lives."""
        seed, start = self.experiment.seed, self.experiment.init

        def init(images: Any) -> TrainState:
            key = randomness.named(jax.random.key(seed), "init")
            params, model_state = self.task.init(key, images)
            ema = self.experiment.train.ema > 0
            return state.create(params, model_state, self.optimizer, ema=ema)

        images = None if start.weights else self._init_images()
        fresh = jax.jit(init, out_shardings=self.shardings)(images)
        if not start.weights:
            return fresh
        return weights.load(
            start.weights,
            fresh,
            self.shardings,
            self.task.module,
            self.task.image_shape,
            new_head=start.new_head,
        )

    def _init_images(self) -> UInt8[np.ndarray, "batch height width channels"] | None:
        """The first training images, for a model that is initialised from them."""
        train = self.dataset.train
        wanted = models.describe(self.experiment.model.name).init_images
        return train.gather(np.arange(min(wanted, len(train))))["image"] if wanted else None

    def train_step(self, teacher: Mapping[str, Any] | None = None) -> step.TrainStep:
        """The step, not yet jitted.

        Args:
          teacher: the teacher's variables as arguments of the program that is compiled; a
            program that closed over them would hold a copy.
        """
        c = self.experiment
        task: Task = self.task
        if self.teacher is not None:
            task = self.teacher.task(self.task, c, teacher or self.teacher.variables)
        return step.create(
            task,
            self.optimizer,
            self.schedule,
            seed=c.seed,
            accumulate=c.train.accumulate,
            ema=c.train.ema,
            starts=self.starts,
            norm_devices=self.mesh if c.train.bn_sync == "per_device" else None,
            shardings=self.shardings.params,
        )

    def compile_step(
        self, state: TrainState, batch: Mapping[str, Any], steps: int = 1
    ) -> tuple[step.TrainStep, Mapping[str, float]]:
        """The step compiled for exactly these shapes, and its cost: {"flops": of one step}.

        It is compiled ahead of time, so that a second trace cannot happen unnoticed: other
        shapes are an error. The state passed to it is donated. With `steps` above 1 it takes
        as many at once, and its metrics have that many entries.
        """
        taught = None if self.teacher is None else self.teacher.variables

        def run(
            teacher: Mapping[str, Any] | None, state: TrainState, batch: Mapping[str, Any]
        ) -> tuple[TrainState, step.Metrics]:
            one = self.train_step(teacher)
            if steps == 1:
                return one(state, self.take(batch))
            # Unrolled bodies would compile as often; a scan compiles once.
            return jax.lax.scan(
                lambda state, i: one(state, self.take(batch, i)), state, jnp.arange(steps)
            )

        jitted = jax.jit(run, donate_argnums=1, out_shardings=(self.shardings, None))
        with native.used(self.native_convolutions):
            traced = jitted.trace(taught, state, batch)
        cost = {"flops": models.cost.operations(traced.jaxpr.jaxpr) / steps}
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        # What `gathering` gathers a second time is a recomputation too.
        remat = self.task.remat if self.mesh.shape["fsdp"] == 1 else "blocks"
        options = rematerialisation.compiler_options(remat, on_cpu=on_cpu)
        program = traced.lower().compile(compiler_options=options)
        if on_cpu:
            needed = program.memory_analysis()
            xla.keep_memory(needed.temp_size_in_bytes if needed else 0, resident.host_memory())
        return functools.partial(program, taught), cost

    @property
    def native_convolutions(self) -> bool:
        """Whether steps and evaluation have their convolutions from the C++ kernels."""
        return xla.uses_native_convolutions(self.experiment, self.mesh)

    def feed(self) -> DeviceFeed | ResidentFeed:
        """The training stream from its start, on the mesh; `take` makes batches of it."""
        c = self.experiment
        if self.resident:
            return ResidentFeed(
                self.dataset,
                self.mesh,
                batch_size=c.data.batch_size,
                seed=c.seed,
                steps_per_call=c.train.steps_per_call,
            )
        share, shares = meshes.share_of_batch(self.mesh)
        batches = pipeline.train_batches(
            self.dataset.train,
            batch_size=c.data.batch_size,
            seed=c.seed,
            threads=c.data.threads,
            workers=c.data.workers,
            process_index=share,
            process_count=shares,
            sampling=self.dataset.sampling,
        )
        return DeviceFeed(batches, self.mesh, ahead=c.data.prefetch)

    def take(self, fed: Mapping[str, Any], step: Any = 0) -> Mapping[str, Any]:
        """The batch of a step, from what the feed handed out; to be called under jit."""
        if not self.resident:
            return fed
        return resident.take(fed, step, self.experiment.data.batch_size, self.mesh)

    def steps_from(self, step: int) -> int:
        """How many steps the call at a step makes.

        As many as asked, unless something is due before: a log line, an evaluation, a
        checkpoint or the end. It depends on the step alone, so a resumed run makes the calls
        of the uncut one.
        """
        asked = self.experiment.train.steps_per_call
        due = (self.log_every, self.eval_every, self.checkpoint_every)
        room = min(self.total_steps - step, *(every - step % every for every in due))
        return asked if room >= asked else 1

    @property
    def state_bytes(self) -> int:
        """Size of the train state over all devices."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.state))


def plan(experiment: Experiment, dataset: Dataset | None = None) -> Plan:
    """Resolves an experiment against its data, its model and the devices at hand.

    Args:
      experiment: what is asked.
      dataset: in place of the one that `experiment.data` names, which is then not read.

    Raises:
      UserError: whatever is impossible, with what to change.
    """
    validation.validate(experiment)
    _check_names(experiment)
    c = experiment = resolving.resolve(experiment)
    mesh = meshes.create(c.mesh)
    meshes.check_batch(mesh, c.data.batch_size, c.train.accumulate, "data.batch_size")
    if c.train.cpu_convolutions == "native" and mesh.devices.size > 1:
        raise UserError(
            "config.train.cpu_convolutions='native' computes on one device, and the mesh has "
            f"{mesh.devices.size}. Set --config.train.cpu_convolutions=auto, or one device by "
            "--config.mesh.data=1."
        )
    eval_batch_size = c.eval.batch_size or c.data.batch_size
    meshes.check_batch(mesh, eval_batch_size, 1, "eval.batch_size")

    dataset = data.load(c.data) if dataset is None else dataset
    heads.check(c.head, has_validation=dataset.validation is not None)
    is_resident, feeding = resident.decide(c.data.resident, dataset, mesh)
    if c.train.steps_per_call > 1 and not is_resident:
        raise UserError(
            f"config.train.steps_per_call={c.train.steps_per_call} needs the training set on the "
            f"device; this run takes {feeding}. Set --config.data.resident=on, or "
            "--config.train.steps_per_call=1."
        )
    info = dataset.info
    models.check(c.model, info.num_classes, info.image_shape)
    mean, std = c.augment.mean or info.mean, c.augment.std or info.std
    task = registry.find(c.task)(
        module=models.create(c.model, info.num_classes, dtype=c.train.compute_dtype),
        augment=augment.build(c.augment, info.image_shape, mean, std, info.num_classes),
        image_shape=info.image_shape,
        mean=tuple(mean),
        std=tuple(std),
        label_smoothing=c.train.label_smoothing,
        remat=c.train.remat,
    )
    attention.check(task.module)
    rematerialisation.check(task.module, c.train.remat, info.image_shape, c.model.name)

    size = {"batch_size": c.data.batch_size, "examples": len(dataset.sampling)}
    total_steps = durations.parse(c.train.duration).steps(**size)
    if total_steps < 1:
        raise UserError(f"config.train.duration={c.train.duration!r} is less than one step.")

    def interval(text: str) -> int:
        return max(1, durations.parse(text).steps(**size, total_steps=total_steps))

    schedule = schedules.create(
        c.schedule, c.optimizer.learning_rate, total_steps=total_steps, **size
    )
    params, model_state = jax.eval_shape(task.init, jax.random.key(0))
    if c.train.bn_sync == "per_device":
        per_device_norm.check(model_state, c.model.name)
    unfreeze_every = durations.parse(c.optimizer.unfreeze_every).steps(
        **size, total_steps=total_steps
    )
    layers = models.layers(task.module, info.image_shape)
    optimizer = optimizers.create(
        c.optimizer, schedule, params, layers=layers, unfreeze_every=unfreeze_every
    )
    abstract = jax.eval_shape(
        lambda p, m: state.create(p, m, optimizer, ema=c.train.ema > 0), params, model_state
    )
    said: tuple[str, ...] = ()
    if c.init.weights:
        said = weights.check(
            c.init.weights, abstract, task.module, info.image_shape, new_head=c.init.new_head
        )
        said += resolving.said(c)
    if c.distill.teacher and c.head.name != heads.TRAINED:
        raise UserError(
            f"config.distill.teacher={c.distill.teacher!r} teaches what is trained, and "
            f"config.head.name={c.head.name!r} is fitted to features alone; set one of them."
        )
    teacher = teachers.load(c, info, mesh) if c.distill.teacher else None
    planned = Plan(
        experiment=experiment,
        dataset=dataset,
        mesh=mesh,
        task=task,
        schedule=schedule,
        optimizer=optimizer,
        starts=freezing.starts(c.optimizer, rules.names(params), layers, unfreeze_every),
        state=abstract,
        shardings=_shardings(c, abstract, mesh, task),
        total_steps=total_steps,
        steps_per_epoch=len(dataset.sampling) / c.data.batch_size,
        log_every=interval(c.log.every),
        eval_every=interval(c.eval.every),
        checkpoint_every=interval(c.checkpoint.every),
        eval_batch_size=eval_batch_size,
        resident=is_resident,
        feeding=feeding,
        weights=said + ((teacher.said,) if teacher else ()),
        teacher=teacher,
    )
    shortest = min(planned.log_every, planned.eval_every, planned.checkpoint_every, total_steps)
    if c.train.steps_per_call > shortest:
        raise UserError(
            f"config.train.steps_per_call={c.train.steps_per_call} never fits between log lines, "
            f"evaluations, checkpoints and the end, of which the closest are so many steps apart: "
            f"{shortest}. Set --config.train.steps_per_call to at most {shortest}, or for example "
            "--config.log.every higher."
        )
    return planned


def _shardings(c: Experiment, state: TrainState, mesh: Mesh, task: Classification) -> TrainState:
    """Where the state lives, as the mesh and the model together allow."""
    shardings = placement.state_shardings(state, mesh, c.mesh.rules)
    names = rules.names(state.params)
    tensor_parallel.check(
        task.module,
        task.image_shape,
        placement.decided(names, c.mesh.rules),
        dict(zip(names, jax.tree.leaves(shardings.params), strict=True)),
        mesh.shape["tensor"],
    )
    return shardings


def _check_names(c: Experiment) -> None:
    """Refuses unknown names before data is read, which may take a while."""
    registry.find(c.task)
    models.describe(c.model.name)
    optimizers.check(c.optimizer)
    schedules.check(c.schedule)
