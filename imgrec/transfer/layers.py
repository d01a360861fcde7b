"""Entries of the common layers as PyTorch names and lays them out, for tables to be made of.

Those called `flax` are as Flax does, whose arrays are ours.

Where a network has its channels in another order than ours, `inputs` and `outputs` give it:
our channel i is theirs `order[i]`.
"""

from collections.abc import Sequence

from imgrec.transfer.mapping import Entry
from imgrec.transfer.turns import CONV, LINEAR, PIXEL, SAME, Turn, fused, reordered

Order = Sequence[int] | None


def conv(
    theirs: str, ours: str, *, bias: bool = False, inputs: Order = None, outputs: Order = None
) -> list[Entry]:
    """A convolution, plain, grouped or depthwise."""
    turn = _ordered(outputs, 0).then(_ordered(inputs, 1)).then(CONV)
    entries = [Entry((f"{theirs}.weight",), (f"params/{ours}/kernel",), turn)]
    return entries + (_bias(theirs, ours, outputs) if bias else [])


def linear(theirs: str, ours: str, *, bias: bool = True, inputs: Order = None) -> list[Entry]:
    """A dense layer."""
    turn = _ordered(inputs, 1).then(LINEAR)
    entries = [Entry((f"{theirs}.weight",), (f"params/{ours}/kernel",), turn)]
    return entries + (_bias(theirs, ours) if bias else [])


def pointwise(theirs: str, ours: str) -> list[Entry]:
    """A dense layer that they have as a 1x1 convolution."""
    return [Entry((f"{theirs}.weight",), (f"params/{ours}/kernel",), PIXEL), *_bias(theirs, ours)]


def head(
    theirs: str, ours: str = "head", *, inputs: Order = None, pointwise: bool = False
) -> list[Entry]:
    """The dense layer that gives the logits; `pointwise`: they have it as a 1x1 convolution."""
    turn = _ordered(inputs, 1).then(PIXEL if pointwise else LINEAR)
    return [
        Entry((f"{theirs}.weight",), (f"params/{ours}/kernel",), turn, classes_axis=0),
        Entry((f"{theirs}.bias",), (f"params/{ours}/bias",), classes_axis=0),
    ]


def norm(theirs: str, ours: str, *, order: Order = None) -> list[Entry]:
    """Scale and shift of any normalisation."""
    turn = _ordered(order, 0)
    return [
        Entry((f"{theirs}.weight",), (f"params/{ours}/scale",), turn),
        Entry((f"{theirs}.bias",), (f"params/{ours}/bias",), turn),
    ]


def batch_norm(theirs: str, ours: str, *, order: Order = None) -> list[Entry]:
    """Scale, shift and moving statistics."""
    turn = _ordered(order, 0)
    return [
        *norm(theirs, ours, order=order),
        Entry((f"{theirs}.running_mean",), (f"batch_stats/{ours}/mean",), turn),
        Entry((f"{theirs}.running_var",), (f"batch_stats/{ours}/var",), turn),
    ]


def conv_norm(conv_theirs: str, norm_theirs: str, ours: str) -> list[Entry]:
    """A convolution and its batch norm, which are one `ConvNorm` here."""
    return [*conv(conv_theirs, f"{ours}/conv"), *batch_norm(norm_theirs, f"{ours}/norm")]


def query_key_value(weight: str, bias: str, ours: str) -> list[Entry]:
    """One layer that gives an attention's queries, keys and values; `ours` has three."""
    parts = [f"params/{ours}/{name}" for name in ("query", "key", "value")]
    return [
        Entry((weight,), tuple(f"{part}/kernel" for part in parts), fused(3).then(LINEAR)),
        Entry((bias,), tuple(f"{part}/bias" for part in parts), fused(3)),
    ]


def flax(theirs: str, ours: str) -> list[Entry]:
    """A convolution or a dense layer."""
    return [_same(theirs, ours, "kernel"), _same(theirs, ours, "bias")]


def flax_norm(theirs: str, ours: str) -> list[Entry]:
    """Scale and shift of any normalisation."""
    return [_same(theirs, ours, "scale"), _same(theirs, ours, "bias")]


def flax_head(theirs: str, ours: str = "head") -> list[Entry]:
    """The dense layer that gives the logits."""
    return [
        Entry((f"{theirs}/kernel",), (f"params/{ours}/kernel",), classes_axis=1),
        Entry((f"{theirs}/bias",), (f"params/{ours}/bias",), classes_axis=0),
    ]


def _same(theirs: str, ours: str, leaf: str) -> Entry:
    return Entry((f"{theirs}/{leaf}",), (f"params/{ours}/{leaf}",))


def _bias(theirs: str, ours: str, order: Order = None) -> list[Entry]:
    return [Entry((f"{theirs}.bias",), (f"params/{ours}/bias",), _ordered(order, 0))]


def _ordered(order: Order, axis: int) -> Turn:
    return SAME if order is None else reordered(order, axis)
