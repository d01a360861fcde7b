"""Pickles: plain values as Python reads them, and programs that never run."""

import collections
import io
import os
import pickle
import pickletools

import pytest

from imgrec.transfer import unpickling
from imgrec.transfer.rebuilding import MalformedError
from imgrec.transfer.unpickling import ForeignNameError


def no_storage(identity):
    raise MalformedError("no storage here")


def load(content):
    return unpickling.load(io.BytesIO(content), no_storage)


PLAIN = {
    "epoch": 3,
    "big": [2**70, -(2**40), -1, 255, 256, 65536],
    "rates": (0.1, float("inf"), -0.0),
    "flags": [True, False, None],
    "arch": "resnet20",
    "text": "ä" * 300,
    "bytes": b"\x00\xff" * 200,
    "sets": [{1, 2}, frozenset({"a"}), set()],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "complex": 1 + 2j,
    "nested": {"a": [{"b": {}}]},
    5: "number as key",
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_as_python_reads_them(protocol):
    if protocol < 2:  # which make these by names that nothing in a state dict needs
        plain = {k: v for k, v in PLAIN.items() if k not in ("sets", "bytes", "complex")}
        assert load(pickle.dumps(plain, protocol)) == plain
        return
    assert load(pickle.dumps(PLAIN, protocol)) == PLAIN


def test_shared_and_recursive_values_stay_shared():
    shared = [1]
    first, second = load(pickle.dumps([shared, shared], 2))
    assert first is second
    recursive = []
    recursive.append(recursive)
    found = load(pickle.dumps(recursive, 2))
    assert found[0] is found


def test_an_ordered_dict_keeps_its_order_and_loses_its_attributes():
    state = collections.OrderedDict(b=1, a=2)
    state._metadata = {"": {"version": 1}}
    found = load(pickle.dumps(state, 2))
    assert list(found.items()) == [("b", 1), ("a", 2)]
    assert type(found) is dict


def test_the_file_is_left_behind_the_pickle():
    file = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps("two", 2) + b"rest")
    assert unpickling.load(file, no_storage) == 1
    assert unpickling.load(file, no_storage) == "two"
    assert file.read() == b"rest"


class Calls:
    """Pickled, it is a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class Stateful:
    def __getstate__(self):
        return {"a": 1}

    def __setstate__(self, state):
        raise AssertionError("executed")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (lambda path: Calls(os.system, f"touch {path}"), r"(posix|nt)\.system"),
        (lambda path: Calls(eval, f"open({str(path)!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (lambda path: Calls(exec, f"open({str(path)!r}, 'w')"), r"(builtins|__builtin__)\.exec"),
        (lambda path: Calls(getattr, dict, "clear"), r"(builtins|__builtin__)\.getattr"),
        (lambda path: Calls(open, str(path), "w"), r"io\.open|_io\.open|__builtin__\.open"),
        (lambda path: Stateful(), "Stateful|copyreg|copy_reg"),
        (lambda path: collections.deque([1]), r"collections\.deque"),
    ],
    ids=["system", "eval", "exec", "getattr", "open", "setstate", "deque"],
)
def test_attacks_are_refused_by_name_and_nothing_runs(value, name, protocol, tmp_path):
    path = tmp_path / "pwned"
    # As in a real attack, the weights around it look right.
    content = pickle.dumps({"state_dict": {"a": 1}, "extra": value(path)}, protocol)
    with pytest.raises(ForeignNameError, match=name):
        load(content)
    assert not path.exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        # Calls of what is no function: text, a container, a type.
        (b"\x80\x02X\x02\x00\x00\x00os)R.", "no function"),
        (b"\x80\x02})R.", "no function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "no function"),
        # Attributes of a list, and of a function of ours.
        (b"\x80\x02]}b.", "sets attributes"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "sets attributes"),
        # Objects made without a call (NEWOBJ, INST, OBJ), and the registry of short names.
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        # Names with dots walk along attributes in Python's own machine.
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", "OrderedDict.__init__"),
        # A name that is no text.
        (b"\x80\x04K\x01K\x02\x93.", "no text"),
        (b"\x80\x04](K\x01ek\x93.", "damaged"),
        # Damage: an empty stack, no mark, an odd number of pairs, a list as a key, no memo.
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02K\x01u.", "damaged"),
        (b"\x80\x02}(K\x01u.", "damaged"),
        (b"\x80\x02}]K\x01s.", "damaged"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02K\x01a.", "damaged"),
        (b"\x80\x02]K\x01Q.", "no storage"),
        # Cut, empty, and lengths beyond the end.
        (b"\x80\x02}", "damaged or cut"),
        (b"", "damaged or cut"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged or cut"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged or cut"),
        # Bytes in an encoding that could be anything.
        (pickletools.optimize(pickle.dumps(Calls(__import__("_codecs").encode, "a", "rot13"), 2)),
         "encoded in a way that pickles never do"),
    ],
)  # fmt: skip
def test_programs_that_no_checkpoint_is(program, message):
    with pytest.raises((ForeignNameError, MalformedError), match=message):
        load(program)


def test_values_that_are_exponentially_long_take_no_time():
    """Forty levels of pairs share one value: 2**40 leaves to hash, write out or compare."""
    value = ()
    for _ in range(40):
        value = (value, value)
    found = load(pickle.dumps({"a": value}, 2))
    for _ in range(40):
        assert found is not None
        found = found["a"] if isinstance(found, dict) else found[0]
    for wrapped in ({0: value}, [value]):  # as a value, and below as a key
        load(pickle.dumps(wrapped, 2))
    content = pickle.dumps(value, 2)[:-1]  # without its end
    for program in (
        b"\x80\x02}" + content[2:] + b"K\x01s.",
        b"\x80\x04\x8f(" + content[2:] + b"\x90.",
        b"\x80\x04(" + content[2:] + b"\x91.",
        b"\x80\x02c__builtin__\nset\n]" + content[2:] + b"a\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n]" + content[2:] + b"K\x01\x86a\x85R.",
        b"\x80\x02ctorch\ndevice\n" + content[2:] + b"\x85R.",
    ):
        with pytest.raises(MalformedError, match="a tuple is no key"):
            load(program)
    with pytest.raises(MalformedError, match="a name that is no text"):
        load(b"\x80\x04" + content[2:] + b"K\x01\x93.")
    with pytest.raises(MalformedError, match="encoded in a way that pickles never do"):
        load(b"\x80\x02c_codecs\nencode\nK\x01" + content[2:] + b"\x86R.")
    with pytest.raises(MalformedError, match="damaged or cut"):
        load(b"\x80\x02ctorch._utils\n_rebuild_tensor\n(" + content[2:] * 4 + b"tR.")


def test_a_wrapper_of_itself_is_refused():
    wrapper = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    # Its arguments are a list that holds itself.
    arguments = b"]q\x00(" + wrapper + b"Nh\x00Ne"
    with pytest.raises(MalformedError, match="made by no function"):
        load(b"\x80\x02" + wrapper + b"(" + wrapper + b"N" + arguments + b"NtR.")


def test_copies_of_copies_stay_within_the_files_size():
    numbers = b"(" + b"K\x01" * 1000 + b"lq\x000"
    for module, name in (("torch", "Size"), ("__builtin__", "set")):
        call = f"c{module}\n{name}\n".encode() + b"h\x00\x85R0"
        once = b"\x80\x02" + numbers + call + b"N."
        assert load(once) is None
        if name == "Size":
            with pytest.raises(MalformedError, match="more than a file of its size can hold"):
                load(b"\x80\x02" + numbers + call * 1000 + b"N.")
        else:  # a set of one
            assert load(b"\x80\x02" + numbers + call * 100 + b"N.") is None
