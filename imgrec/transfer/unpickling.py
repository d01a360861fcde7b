"""The pickles inside PyTorch's files, as plain values, with nothing imported or executed.

A pickle is a program for a small stack machine; Python's own runs whatever function the
program names. The machine here knows containers, numbers, text and the few names that a
PyTorch state dict is made of, and stops at the first other name. Its opcodes come from
`pickletools`, which reads a pickle without running it.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from imgrec.transfer.rebuilding import NAMES, Function, MalformedError, Storage, pairs, plain

PersistentId = tuple[Any, ...]


class ForeignNameError(Exception):
    """The pickle asks for a function or class that no state dict needs; its name."""


def load(file: io.BytesIO | io.BufferedReader, storage: Callable[[PersistentId], Storage]) -> Any:
    """The value that one pickle describes; the file is left behind its end.

    Args:
      file: at the pickle's first byte.
      storage: finds the storage that a persistent id stands for, and may raise either error.

    Returns:
      Dicts, lists, tuples, sets, numbers, text, bytes, None, and tensors as read-only views
      (numpy arrays) into their storages.

    Raises:
      ForeignNameError: the pickle names anything else.
      MalformedError: it is no whole pickle.
    """
    bounded = _Bounded(file)
    machine = _Machine(storage, bounded.size)
    try:
        for opcode, argument, _ in pickletools.genops(cast(BinaryIO, bounded)):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    # What a damaged program does to a stack machine: too few values, values of a wrong kind.
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError) as error:
        raise MalformedError(f"its pickle is damaged or cut ({error})") from error
    raise MalformedError("its pickle has no end")


class _Bounded:
    """A file that is never asked for more bytes than it has.

    Text in a pickle brings its length, and Python makes room for all of it before it reads.
    """

    def __init__(self, file: io.BytesIO | io.BufferedReader) -> None:
        here = file.tell()
        self.size = file.seek(0, io.SEEK_END)
        file.seek(here)
        self.file, self.readline, self.tell = file, file.readline, file.tell

    def read(self, count: int) -> bytes:
        """At most so many bytes."""
        return self.file.read(min(count, self.size - self.tell()))


class _Machine:
    """The stack, the marks in it, and the memo of a pickle that is being read.

    Pickles share values by reference, so a few bytes can describe a value that is exponentially
    long to write out, to hash or to copy. Hence only plain values are keys, nothing is turned
    into text, and all calls together make no more elements than the file has bytes.
    """

    def __init__(self, storage: Callable[[PersistentId], Storage], size: int) -> None:
        self.storage, self.allowance = storage, size
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Does what one opcode says."""
        if opcode in _PUSHED:
            self.stack.append(argument)
        elif opcode in _MADE:
            self.stack.append(_MADE[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in _OPERATIONS:
            _OPERATIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise MalformedError(f"its pickle makes an object ({opcode}), which no tensor needs")

    def since_mark(self) -> list[Any]:
        """Takes what was pushed since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def take(self, count: int) -> list[Any]:
        """Takes the last so many values."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def top(self, kind: type) -> Any:
        """The container on the top of the stack, which has to be exactly of this kind."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"{type(self.stack[-1]).__name__} is no {kind.__name__}")
        return self.stack[-1]

    def append(self, items: list[Any]) -> None:
        """Adds items to the list on the top of the stack."""
        self.top(list).extend(items)

    def set(self, items: list[Any]) -> None:
        """Adds keys and values, by turns, to the dict on the top of the stack."""
        self.top(dict).update(pairs(items))

    def add(self, items: list[Any]) -> None:
        """Adds items to the set on the top of the stack."""
        self.top(set).update(plain(items))

    def name(self, module: Any, name: Any) -> None:
        """Pushes what a name stands for, or refuses it."""
        if type(module) is not str or type(name) is not str:
            raise MalformedError("its pickle calls something by a name that is no text")
        if (module, name) not in NAMES:
            raise ForeignNameError(f"{module}.{name}")
        self.stack.append(NAMES[module, name])

    def call(self) -> None:
        """Calls one of our own functions with the arguments on the stack."""
        function, arguments = self.take(2)
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise TypeError("a call of something that is no function")
        made = function.of(*arguments)
        if isinstance(made, dict | tuple | set | frozenset | bytes):
            self.allowance -= len(made)
            if self.allowance < 0:
                raise MalformedError("its pickle makes more than a file of its size can hold")
        self.stack.append(made)

    def state(self) -> None:
        """Drops the attributes of an ordered dict (a state dict's version numbers)."""
        self.take(1)
        if type(self.stack[-1]) is not dict:
            raise MalformedError("its pickle sets attributes of an object, which no tensor needs")

    def persistent(self) -> None:
        """Pushes the storage that the id on the stack stands for."""
        (identity,) = self.take(1)
        if type(identity) is not tuple or not identity or identity[0] != "storage":
            raise MalformedError("its pickle refers to something that is no storage")
        self.stack.append(self.storage(identity))


# The argument is the value.
_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.take(1),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.take(3))),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "DICT": lambda m, _: m.stack.append(pairs(m.since_mark())),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(plain(m.since_mark()))),
    "APPEND": lambda m, _: m.append(m.take(1)),
    "APPENDS": lambda m, _: m.append(m.since_mark()),
    "SETITEM": lambda m, _: m.set(m.take(2)),
    "SETITEMS": lambda m, _: m.set(m.since_mark()),
    "ADDITEMS": lambda m, _: m.add(m.since_mark()),
    "GLOBAL": lambda m, name: m.name(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.take(2)),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.state(),
    "BINPERSID": lambda m, _: m.persistent(),
}
