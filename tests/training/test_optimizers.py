import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from imgrec.config import OptimizerConfig
from imgrec.errors import UserError
from imgrec.training import optimizers, rules
from imgrec.training.optimizers import OPTIMIZERS

EVERY_OPTIMIZER = pytest.mark.parametrize("name", OPTIMIZERS)
SHAPES = {
    "stem": {"kernel": (5, 4), "bias": (4,)},
    "hidden": {"kernel": (3, 3, 4, 6), "scale": (6,)},
    "head": {"kernel": (6, 3)},
}


def tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def schedule(step):
    return 0.1 / (1 + jnp.asarray(step, jnp.float32))


def create(name, params, *, rate=schedule, layers=(), unfreeze_every=0, **settings):
    options = ConfigDict(settings.pop("options", {}))
    settings = {"weight_decay_rules": (), **settings}
    config = OptimizerConfig(name=name, options=options, **settings)
    return optimizers.create(config, rate, params, layers=layers, unfreeze_every=unfreeze_every)


def trajectory(optimizer, params, grads):
    """Parameters after each of several steps along given gradients."""

    def step(carry, grad):
        params, state = carry
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    def run(params, grads):
        return jax.lax.scan(step, (params, optimizer.init(params)), grads)[1]

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *grads)
    visited = jax.device_get(jax.jit(run)(params, stacked))
    return [jax.tree.map(lambda leaf, t=t: leaf[t], visited) for t in range(len(grads))]


def first_update(optimizer, params, grad):
    return jax.jit(lambda p, g: optimizer.update(g, optimizer.init(p), p)[0])(params, grad)


# What each optimizer does to one parameter, written from the papers in float64. Each is a
# generator that is sent (gradient, parameter) and yields the step to take, before the rate.


def sgd(*, decay, momentum=0.9, nesterov=True):
    trace, step = 0.0, None
    while True:
        grad, param = yield step
        grad = grad + decay * param  # coupled: L2 regularisation
        trace = momentum * trace + grad
        step = grad + momentum * trace if nesterov else trace


def adam(*, b1=0.9, b2=0.999, eps=1e-8):
    first, second, t, step = 0.0, 0.0, 0, None
    while True:
        grad, _ = yield step
        t += 1
        first = b1 * first + (1 - b1) * grad
        second = b2 * second + (1 - b2) * grad**2
        step = first / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + eps)


def adamw(*, decay, **options):
    direction, step = started(adam(**options)), None
    while True:
        grad, param = yield step
        step = direction.send((grad, param)) + decay * param


def lamb(*, decay, eps=1e-6, **options):
    direction, step = started(adam(eps=eps, **options)), None
    while True:
        grad, param = yield step
        step = direction.send((grad, param)) + decay * param
        step = step * np.linalg.norm(param) / np.linalg.norm(step)


def lion(*, decay, b1=0.9, b2=0.99):
    momentum, step = 0.0, None
    while True:
        grad, param = yield step
        step = np.sign(b1 * momentum + (1 - b1) * grad) + decay * param
        momentum = b2 * momentum + (1 - b2) * grad


def started(generator):
    next(generator)
    return generator


REFERENCES = [
    ("sgd", sgd, 0.0, {}),
    ("sgd", sgd, 0.3, {}),
    ("sgd", sgd, 0.3, {"momentum": 0.0}),
    ("sgd", sgd, 0.3, {"momentum": 0.8, "nesterov": False}),
    ("adamw", adamw, 0.0, {}),
    ("adamw", adamw, 0.3, {"b1": 0.8, "b2": 0.95, "eps": 1e-3}),
    ("lamb", lamb, 0.0, {}),
    ("lamb", lamb, 0.3, {"b2": 0.99}),
    ("lion", lion, 0.0, {}),
    ("lion", lion, 0.3, {"b1": 0.95, "b2": 0.98}),
]


@pytest.mark.parametrize(("name", "reference", "decay", "options"), REFERENCES)
def test_follows_the_papers_formula(name, reference, decay, options):
    params, grads = tree(0), [tree(seed) for seed in (1, 2, 3, 4)]
    optimizer = create(name, params, weight_decay=decay, options=options)
    found = trajectory(optimizer, params, grads)
    for i, start in enumerate(jax.tree.leaves(params)):
        rule, expected = started(reference(decay=decay, **options)), np.float64(start)
        for t, (grad, after) in enumerate(zip(grads, found, strict=True)):
            step = rule.send((np.float64(jax.tree.leaves(grad)[i]), expected))
            expected = expected - 0.1 / (1 + t) * step
            np.testing.assert_allclose(jax.tree.leaves(after)[i], expected, rtol=2e-5, atol=2e-6)


def orthogonalised(matrix):
    """Five quintic Newton-Schulz steps, of Jordan's coefficients."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T) / np.linalg.norm(matrix)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide else x.T


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_orthogonalises_the_momentum_of_hidden_matrices(nesterov):
    params, grads = tree(0), [tree(seed) for seed in (1, 2, 3)]
    options = {"beta": 0.9, "nesterov": nesterov}
    found = trajectory(create("muon", params, options=options), params, grads)
    kernel, momentum = np.float64(params["hidden"]["kernel"]), 0.0
    for t, (grad, after) in enumerate(zip(grads, found, strict=True), 1):
        grad = np.float64(grad["hidden"]["kernel"])
        momentum = 0.9 * momentum + 0.1 * grad
        if nesterov:
            ahead = 0.9 * momentum / (1 - 0.9 ** (t + 1)) + 0.1 * grad / (1 - 0.9**t)
        else:
            ahead = momentum
        # A 3x3 convolution from 4 to 6 channels counts as a matrix of 36 rows, 6 columns.
        step = orthogonalised(ahead.reshape(36, 6)).reshape(3, 3, 4, 6)
        kernel = kernel - 0.1 / t * step
        np.testing.assert_allclose(after["hidden"]["kernel"], kernel, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5), (3, 3, 2, 7)])
def test_muons_steps_are_nearly_orthogonal(shape):
    rng = np.random.default_rng(0)
    params = {"hidden": {"kernel": jnp.ones(shape)}}
    grad = {"hidden": {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}}
    update = first_update(create("muon", params, rate=lambda step: 1.0), params, grad)
    matrix = np.float64(update["hidden"]["kernel"]).reshape(-1, shape[-1])
    rows, columns = matrix.shape
    values = np.linalg.svd(matrix, compute_uv=False) / max(1, columns / rows) ** 0.5
    assert values.min() > 0.5  # the band that five steps of Newton-Schulz leave
    assert values.max() < 1.3


def test_muon_leaves_vectors_and_outer_layers_to_adam():
    params, grads = tree(0), [tree(seed) for seed in (1, 2, 3)]
    found = trajectory(create("muon", params, options={"adam_scale": 0.25}), params, grads)
    adam_only = trajectory(create("adamw", params), params, grads)
    others = {"stem/kernel", "stem/bias", "hidden/scale", "head/kernel"}
    moved = jax.tree.map(np.subtract, found[-1], params)
    by_adam = jax.tree.map(lambda a, b: 0.25 * (a - b), adam_only[-1], params)
    for name, leaf, expected in zip(
        rules.names(params), jax.tree.leaves(moved), jax.tree.leaves(by_adam), strict=True
    ):
        close = np.allclose(leaf, expected, rtol=1e-4, atol=1e-6)
        assert close == (name in others), name


def test_muon_takes_other_names_for_adam():
    params, grad = tree(0), tree(1)
    options = {"adam_names": "hidden/.*", "adam_scale": 1.0}
    update = first_update(create("muon", params, options=options), params, grad)
    by_adam = first_update(create("adamw", params), params, grad)
    np.testing.assert_allclose(update["hidden"]["kernel"], by_adam["hidden"]["kernel"], rtol=1e-5)
    assert not np.allclose(update["head"]["kernel"], by_adam["head"]["kernel"])


RATES = {"sgd": 0.05, "adamw": 0.05, "lamb": 0.03, "lion": 0.02, "muon": 0.1}


@EVERY_OPTIMIZER
def test_loss_falls_on_a_quadratic_and_the_state_stays_finite(name):
    params, target = tree(0), tree(1)
    optimizer = create(
        name, params, rate=lambda step: RATES[name], weight_decay=1e-3, clip_norm=10.0
    )

    def loss(params):
        return optax.tree.norm(jax.tree.map(jnp.subtract, params, target), squared=True)

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), value

    carry = (params, optimizer.init(params))
    (params, state), losses = jax.jit(lambda c: jax.lax.scan(step, c, length=60))(carry)
    assert losses[-1] < 0.5 * losses[0]
    for leaf in jax.tree.leaves((params, state)):
        assert jnp.isfinite(leaf).all()


@EVERY_OPTIMIZER
def test_decay_obeys_its_rules(name):
    params = tree(0)
    pairs = (("head/.*", 0.0), (".*/(bias|scale)", 0.0), ("hidden/.*", 2.0))
    optimizer = create(name, params, weight_decay=0.25, weight_decay_rules=pairs)
    updates = first_update(optimizer, params, jax.tree.map(np.zeros_like, params))
    # Without a gradient only decay moves anything: by 0.25 times the multiplier times the rate.
    coupled = 1.9 if name == "sgd" else 1  # Nesterov's first step takes the gradient 1.9 times
    multipliers = {"head/kernel": 0, "stem/bias": 0, "hidden/scale": 0, "hidden/kernel": 2}
    for key, update, param in zip(
        rules.names(params), jax.tree.leaves(updates), jax.tree.leaves(params), strict=True
    ):
        multiplier = multipliers.get(key, 1)
        # LAMB scales every step to the norm of its parameter.
        shrinks = float(multiplier > 0) if name == "lamb" else 0.25 * multiplier * coupled
        np.testing.assert_allclose(
            update, -0.1 * shrinks * np.float64(param), rtol=1e-5, atol=1e-7, err_msg=key
        )


@EVERY_OPTIMIZER
def test_learning_rate_multipliers_scale_exactly(name):
    params, grad = tree(0), tree(1)
    pairs = (("stem/bias", 0.0), ("stem/.*", 4.0), ("head/.*", 0.5))
    plain = first_update(create(name, params, weight_decay=0.1), params, grad)
    scaled = first_update(
        create(name, params, weight_decay=0.1, learning_rate_rules=pairs), params, grad
    )
    factors = {"stem/bias": 0.0, "stem/kernel": 4.0, "head/kernel": 0.5}
    for key, one, other in zip(
        rules.names(params), jax.tree.leaves(plain), jax.tree.leaves(scaled), strict=True
    ):
        np.testing.assert_array_equal(other, one * factors.get(key, 1.0), err_msg=key)


@EVERY_OPTIMIZER
def test_frozen_parameters_stay_and_cost_nothing(name):
    params, grads = tree(0), [tree(seed) for seed in (1, 2)]
    settings = {
        "weight_decay": 0.1,
        "clip_norm": 0.5,
        "weight_decay_rules": ((".*/scale", 0.0),),
        "learning_rate_rules": (("head/.*", 2.0),),
    }
    frozen = create(name, params, freeze=("stem/.*", "hidden/kernel"), **settings)
    state_names = rules.names(jax.eval_shape(frozen.init, params))
    for gone in ("stem/kernel", "stem/bias", "hidden/kernel"):
        assert not any(name.endswith(gone) for name in state_names)

    after = trajectory(frozen, params, grads)[-1]
    np.testing.assert_array_equal(after["hidden"]["kernel"], params["hidden"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, after["stem"], params["stem"])

    # The others move as if the frozen ones did not exist: these have no part in the norm.
    def without(tree):
        return {"hidden": {"scale": tree["hidden"]["scale"]}, "head": tree["head"]}

    alone = create(name, without(params), **settings)
    expected = trajectory(alone, without(params), [without(grad) for grad in grads])[-1]
    assert not np.array_equal(after["head"]["kernel"], params["head"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, without(after), expected)


@EVERY_OPTIMIZER
def test_state_is_kept_under_the_names_of_the_parameters(name):
    params = tree(0)
    shapes = dict(zip(rules.names(params), (x.shape for x in jax.tree.leaves(params)), strict=True))
    state = jax.eval_shape(create(name, params).init, params)
    for key, leaf in zip(rules.names(state), jax.tree.leaves(state), strict=True):
        owner = [param for param in shapes if key.endswith(param)]
        if owner:
            assert leaf.shape == shapes[owner[0]]
        else:
            assert leaf.size <= 3, f"{key} {leaf.shape} belongs to no parameter"


@EVERY_OPTIMIZER
def test_shapes_are_enough_to_create_it(name):
    params, grad = tree(0), tree(1)
    settings = {"weight_decay": 0.1, "freeze": ("stem/.*",), "learning_rate_rules": ((".*", 0.5),)}
    from_shapes = create(name, jax.eval_shape(lambda: params), **settings)
    jax.tree.map(
        np.testing.assert_array_equal,
        first_update(from_shapes, params, grad),
        first_update(create(name, params, **settings), params, grad),
    )


def test_the_norm_of_the_gradient_is_clipped_exactly():
    params, grad = tree(0), tree(1)
    norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in jax.tree.leaves(grad)))
    plain = {"options": {"momentum": 0.0}, "rate": lambda step: 1.0}
    clipped = first_update(create("sgd", params, clip_norm=2.0, **plain), params, grad)
    for update, g in zip(jax.tree.leaves(clipped), jax.tree.leaves(grad), strict=True):
        np.testing.assert_allclose(update, -np.float64(g) * 2.0 / norm, rtol=1e-5)
    within = first_update(create("sgd", params, clip_norm=2 * norm, **plain), params, grad)
    jax.tree.map(lambda u, g: np.testing.assert_array_equal(u, -g), within, grad)


@pytest.mark.parametrize("limit", [0.5, 1e6])
@pytest.mark.parametrize("settings", [{}, {"freeze": ("stem/.*",)}, {"unfreeze_every": 1}])
def test_clipping_takes_a_norm_that_is_known_and_is_optax_own(limit, settings):
    params, grad = tree(0), tree(1)
    plain = {"options": {"momentum": 0.0}, "rate": lambda step: 1.0, "layers": LAYERS}
    optimizer = create("sgd", params, clip_norm=limit, **plain, **settings)
    first = optimizer.init(params)
    if not settings:
        theirs, _ = optax.clip_by_global_norm(limit).update(grad, optax.EmptyState())
        ours, _ = optimizer.update(grad, first, params)
        jax.tree.map(lambda u, g: np.testing.assert_array_equal(u, -g), ours, theirs)
    expected = create("sgd", params, **plain, **settings)
    expected, _ = expected.update(grad, expected.init(params), params)
    known, _ = optimizer.update(grad, first, params, gradient_norm=jnp.float32(4 * limit))
    jax.tree.map(lambda u, e: np.testing.assert_allclose(u, e / 4, rtol=1e-6), known, expected)


def test_clipping_comes_before_decay():
    params, grad = tree(0), tree(1)
    plain = {"options": {"momentum": 0.0}, "rate": lambda step: 1.0}
    clipped = first_update(create("sgd", params, clip_norm=2.0, **plain), params, grad)
    decayed = first_update(
        create("sgd", params, clip_norm=2.0, weight_decay=0.5, **plain), params, grad
    )
    for both, clip, param in zip(*map(jax.tree.leaves, (decayed, clipped, params)), strict=True):
        np.testing.assert_allclose(both, clip - 0.5 * param, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ("stam/.*",)}, "config.optimizer.freeze: the rule 'stam/.*' matches none"),
        ({"freeze": (".*", "head/.*")}, "config.optimizer.freeze: the rule 'head/.*' decides noth"),
        (
            {"weight_decay_rules": (("bias", 0.0),)},
            "config.optimizer.weight_decay_rules: the rule 'bias' matches none of the 5",
        ),
        (
            {"weight_decay_rules": (("stem/.*", 0.0), ("stem/bias", 1.0))},
            "config.optimizer.weight_decay_rules: the rule 'stem/bias' decides nothing",
        ),
        (
            {"learning_rate_rules": (("heads/kernel", 0.1),)},
            "'heads/kernel' matches none of the 5 parameters; the nearest is 'head/kernel'",
        ),
    ],
)
def test_a_rule_that_decides_nothing_is_named(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        create("sgd", tree(0), **settings)


def test_muons_own_rule_may_match_nothing_but_a_chosen_one_may_not():
    params = {"c1": {"kernel": jnp.ones((2, 3))}}
    create("muon", params).init(params)
    with pytest.raises(UserError, match=re.escape("config.optimizer.options.adam_names: the rule")):
        create("muon", params, options={"adam_names": "head/.*"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adam", {}, "Unknown optimizer 'adam'. Did you mean 'adamw'"),
        ("sgd", {"momentun": 0.9}, "Did you mean 'momentum'? Known: momentum, nesterov."),
        ("adamw", {"momentum": 0.9}, "Known: b1, b2, eps."),
        ("lion", {"b1": "0.9"}, "config.optimizer.options.b1='0.9' has the type str; expected fl"),
    ],
)
def test_unknown_names_and_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        optimizers.check(OptimizerConfig(name=name, options=ConfigDict(options)))


LAYERS = (("stem",), ("hidden",), ("head",))


def test_layer_wise_decay_multiplies_the_rate_of_each_layer():
    names = ["stem/kernel", "hidden/scale", "head/kernel", "head/bias"]
    assert optimizers.layer_multipliers(0.5, LAYERS, names) == [0.25, 0.5, 1.0, 1.0]
    params, grad = tree(0), tree(1)
    plain = {"options": {"momentum": 0.0}, "rate": lambda step: 1.0}
    rules_beside = {"learning_rate_rules": (("hidden/.*", 3.0),)}
    found = first_update(
        create("sgd", params, layers=LAYERS, layer_decay=0.5, **rules_beside, **plain), params, grad
    )
    for part, expected in {"stem": 0.25, "hidden": 1.5, "head": 1.0}.items():
        jax.tree.map(
            lambda u, g, m=expected: np.testing.assert_allclose(u, -m * g, rtol=1e-6),
            found[part],
            grad[part],
        )


@EVERY_OPTIMIZER
def test_a_layer_that_thaws_starts_as_a_fresh_optimizer_would(name):
    params, grads = tree(0), [tree(i) for i in range(1, 6)]
    settings = {"weight_decay": 0.1, "weight_decay_rules": ((".*/scale", 0.0),)}
    settings["rate"] = lambda step: 0.1
    thawing = create(name, params, layers=LAYERS, unfreeze_every=2, **settings)
    after = trajectory(thawing, params, grads)
    for t, now in enumerate(after):  # the hidden layer moves from the third step on
        moved = not np.array_equal(now["hidden"]["kernel"], params["hidden"]["kernel"])
        assert moved == (t >= 2)
        assert np.array_equal(now["stem"]["kernel"], params["stem"]["kernel"]) == (t < 4)
    alone = trajectory(create(name, params, **settings), params, grads[2:4])[-1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7),
        after[3]["hidden"],
        alone["hidden"],
    )


def test_thawing_beside_frozen_layers_and_clipping():
    params, grads = tree(0), [tree(i) for i in range(1, 5)]
    settings = {"freeze": ("stem/.*",), "clip_norm": 1.0, "weight_decay": 0.1}
    optimizer = create("adamw", params, layers=LAYERS, unfreeze_every=2, **settings)
    after = trajectory(optimizer, params, grads)[-1]
    jax.tree.map(np.testing.assert_array_equal, after["stem"], params["stem"])
    assert not np.array_equal(after["hidden"]["kernel"], params["hidden"]["kernel"])
    names = rules.names(jax.eval_shape(optimizer.init, params))
    assert not any(name.endswith("stem/kernel") for name in names)


MOMENTA = {"sgd": "trace", "adamw": "mu", "lamb": "mu", "lion": "mu", "muon": "mu"}


@EVERY_OPTIMIZER
def test_momentum_can_have_half_the_bytes(name):
    """It alone: Adam's second moment and the steps themselves stay in float32."""
    params = tree(0)
    half = create(name, params, state_dtype="bfloat16")
    state = jax.eval_shape(half.init, params)
    momenta = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape and MOMENTA[name] in rules.name_of(path).split("/"):
            assert leaf.dtype == jnp.bfloat16
            momenta += leaf.size
        else:
            assert leaf.dtype in (jnp.float32, jnp.int32)
    assert momenta == sum(leaf.size for leaf in jax.tree.leaves(params))


@EVERY_OPTIMIZER
def test_momentum_in_half_the_bytes_goes_nearly_the_same_way(name):
    params, grads = tree(0), [tree(seed) for seed in range(1, 5)]
    half = trajectory(create(name, params, state_dtype="bfloat16"), params, grads)[-1]
    whole = trajectory(create(name, params), params, grads)[-1]
    for found, wanted, start in zip(*map(jax.tree.leaves, (half, whole, params)), strict=True):
        assert found.dtype == np.float32
        moved = np.abs(wanted - start).mean()
        # Signs, as Lion takes them, turn where the momentum is next to nothing.
        assert np.abs(found - wanted).mean() < (0.1 if name in ("lion", "muon") else 0.02) * moved
