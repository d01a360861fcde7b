"""What a compiled program does: its traffic between devices, its arithmetic and its memory.

Read from the program after XLA's optimisation, so it shows what the partitioner made of the
shardings: a forgotten constraint is a gather of activations, and a sum taken twice is a second
message. The tests compare these numbers with recorded ones.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

# Arithmetic and memory hang on how XLA fuses for the vector width of the machine at hand.
TOLERANCE = {"flops": 0.01, "memory": 0.05}


@dataclass(frozen=True)
class Traffic:
    """Collective operations of one kind in one run of a program, on each device.

    Attributes:
      count: of operations; several arrays may travel in one.
      arrays: that travel.
      bytes: of the larger side: what a gather returns, what a reduce-scatter takes.
    """

    count: int = 0
    arrays: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.count + other.count, self.arrays + other.arrays, self.bytes + other.bytes
        )

    def __mul__(self, times: int) -> "Traffic":
        return Traffic(self.count * times, self.arrays * times, self.bytes * times)


def summarise(program: Any) -> dict[str, Any]:
    """Collectives, FLOPs and bytes of memory of a `jax.stages.Compiled`, on each device.

    Returns:
      JSON values. `memory.peak` is what arguments, results and intermediates take together,
      with donated arguments counted once.
    """
    memory = program.memory_analysis()
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "donated": memory.alias_size_in_bytes,
        "intermediates": memory.temp_size_in_bytes,
    }
    peak = sizes["arguments"] + sizes["results"] - sizes["donated"] + sizes["intermediates"]
    found = collectives(program.as_text())
    return {
        "collectives": {kind: asdict(traffic) for kind, traffic in sorted(found.items())},
        "flops": program.cost_analysis()["flops"],
        "memory": {**sizes, "peak": peak},
    }


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line "name: was -> is" for each number of `summarise` that is not as recorded.

    Collectives have to agree exactly, the rest within `TOLERANCE`.
    """
    was, is_now = recorded["collectives"], now["collectives"]
    changed = [
        f"{kind}: {_told(was.get(kind))} -> {_told(is_now.get(kind))}"
        for kind in sorted(was.keys() | is_now.keys())
        if was.get(kind) != is_now.get(kind)
    ]
    figures = [
        ("flops", recorded["flops"], now["flops"], TOLERANCE["flops"]),
        *(
            (f"memory, {name}", recorded["memory"][name], now["memory"][name], TOLERANCE["memory"])
            for name in ("arguments", "peak")
        ),
    ]
    return changed + [
        f"{name}: {before:,.0f} -> {after:,.0f} ({after / before - 1:+.1%})"
        for name, before, after, allowed in figures
        if abs(after - before) > allowed * before
    ]


def _told(traffic: Mapping[str, int] | None) -> str:
    if traffic is None:
        return "none"
    return f"{traffic['count']} with {traffic['arrays']} arrays, {traffic['bytes']:,} bytes"


def collectives(hlo: str) -> dict[str, Traffic]:
    """The collective operations that one run of a program makes, by kind.

    An operation in a loop counts as often as the loop turns, where XLA knows (`lax.scan`); one
    that is started and awaited counts once; every side of a conditional counts.

    Args:
      hlo: text of the optimised module, as `Compiled.as_text` gives it.
    """
    return _executed(_computations(hlo), "ENTRY")


@dataclass(frozen=True)
class _Instruction:
    shape: str
    opcode: str
    rest: str  # operands and attributes


Computation = dict[str, _Instruction]

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+)$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
    r"(?:to_apply|calls|body|true_computation|false_computation)=%?([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
_CALLING = ("call", "while", "conditional", "async-start", "fusion")


def _computations(hlo: str) -> dict[str, Computation]:
    """The instructions of every computation by name; the entry's own name is "ENTRY"."""
    found: dict[str, Computation] = {}
    inside: Computation = {}
    for line in hlo.splitlines():
        if head := _HEAD.match(line):
            inside = found.setdefault("ENTRY" if head[1] else head[2], {})
        elif instruction := _INSTRUCTION.match(line):
            shape, rest = _split_shape(instruction[2])
            opcode, _, rest = rest.partition("(")
            inside[instruction[1]] = _Instruction(shape, opcode, rest)
    return found


def _split_shape(text: str) -> tuple[str, str]:
    """("(f32[2], f32[])", "all-reduce(...)"): a tuple's shape has spaces and brackets in it."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: i + 1], text[i + 2 :]
    return text, ""


def _executed(computations: Mapping[str, Computation], name: str) -> dict[str, Traffic]:
    total: dict[str, Traffic] = {}
    computation = computations.get(name, {})
    for instruction in computation.values():
        kind = instruction.opcode.removesuffix("-done")
        if kind in KINDS:  # what is awaited is what was started, and only here tells its result
            here = {kind: _traffic(instruction, computation)}
            _add(total, here, 1)
        elif instruction.opcode in _CALLING:
            trips = _TRIPS.search(instruction.rest)
            for called in _called(instruction):
                _add(total, _executed(computations, called), int(trips[1]) if trips else 1)
    return total


def _add(total: dict[str, Traffic], more: Mapping[str, Traffic], times: int) -> None:
    for kind, traffic in more.items():
        total[kind] = total.get(kind, Traffic()) + traffic * times


def _called(instruction: _Instruction) -> Iterator[str]:
    for one, several in _CALLED.findall(instruction.rest):
        yield from [one] if one else re.findall(r"[\w.\-]+", several)


def _traffic(instruction: _Instruction, computation: Computation) -> Traffic:
    returned = _sizes(instruction.shape)
    # An operand is named, and its shape stands where it is made.
    operands = instruction.rest.partition(")")[0]
    taken = [
        size
        for name in re.findall(r"%([\w.\-]+)", operands)
        if name in computation and not computation[name].opcode.endswith("-start")
        for size in _sizes(computation[name].shape)
    ]
    return Traffic(1, len(returned), max(sum(returned), sum(taken)))


def _sizes(shape: str) -> list[int]:
    """Bytes of each array in a shape; "pred" takes a byte, other types name their bits."""
    bits = [
        (8 if kind == "pred" else int(re.sub(r"\D*(\d+).*", r"\1", kind)), dimensions)
        for kind, dimensions in _ARRAY.findall(shape)
    ]
    return [
        -(-width * prod(int(n) for n in dimensions.split(",") if n) // 8)
        for width, dimensions in bits
    ]
