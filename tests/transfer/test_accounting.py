"""The accounting's words; the numbers in it are tested with the mapping."""

from imgrec.transfer.accounting import Accounting, Problems


def test_lines_say_only_what_is_so():
    plain = Accounting("timm", "", (("a", "params/a"),), 1234, (), (), (), (), {}, "")
    assert plain.lines() == [
        "1 arrays used (1,234 numbers), in the naming of timm",
        "renamed: a is params/a, and so on",
    ]
    nothing = Accounting("timm", "", (), 0, (), (), (), (), {}, "")
    assert nothing.lines() == ["0 arrays used (0 numbers), in the naming of timm"]


def test_no_problems_are_none():
    assert not Problems().any()
    assert Problems(unmapped=["params/a"]).any()


def test_hints_are_only_near_names():
    problems = Problems(missing=[("norm.weight", "params/norm/scale")], unexpected=["zzz"])
    message = problems.message("timm", {"zzz": "module.zzz"})
    assert "missing: norm.weight (our params/norm/scale)\n" in message
    assert "unexpected: module.zzz\n" in message
