"""Every recorded result is one, and what is none is refused by name."""

import json
from pathlib import Path

import pytest

from imgrec import claims
from imgrec.errors import UserError

RESULTS = sorted((Path(__file__).parents[2] / "results").glob("*.json"))
MEASURED = {
    "claim": "a net on a set",
    "metric": "test accuracy",
    "values": [0.9, 0.92],
    "n": 100,
    "target": 0.5,
    "reached": True,
    "seeds": [0, 1],
    "device": "some CPU, 2 cores, cpu",
    "git_revision": "0" * 40,
    "git_dirty": False,
    "command": "python scripts/measure.py net",
}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_what_is_recorded_is_a_result(path):
    result = claims.load(path)
    assert claims.rule(result) in claims.RULES
    if result.get("format", 1) >= 2:
        assert claims.lacking(result) == []
    if result["metric"] == "test accuracy":  # an experiment, of whatever age
        assert result["config"] and result["fingerprint"] and result["seeds"]
    # Its own value is what another measurement is expected to be like.
    assert claims.compare(result, result).inside


def test_what_is_written_has_every_key_and_can_be_read(tmp_path):
    path = tmp_path / "new" / "net.json"
    written = claims.write(path, {**MEASURED, "extra": [1, 2]})
    assert claims.load(path) == written == json.loads(path.read_text())
    assert list(written)[1:-1] == list(claims.KEYS) and written["extra"] == [1, 2]
    assert written["mean"] == pytest.approx(0.91) and written["std"] == pytest.approx(
        0.02**0.5 / 10
    )
    assert written["value"] == written["mean"] and written["rule"] == "seeds"
    assert written["flops"] is None and claims.lacking(written) == []
    assert [p.name for p in path.parent.iterdir()] == ["net.json"]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"values": []}, "'values' is []; expected finite numbers, one at least"),
        ({"values": [0.9, float("nan")], "mean": 0.9, "std": None}, "'values' is"),
        ({"mean": 0.8}, "'mean' is 0.8, and that of 'values' 0.91"),
        ({"std": 0.5}, "'std' is 0.5"),
        ({"seeds": [0]}, "1 'seeds' have 2 'values'"),
        ({"git_revision": "HEAD"}, "'git_revision' is 'HEAD'; expected forty hex digits"),
        ({"fingerprint": "abc"}, "expected twelve hex digits or null"),
        ({"rule": "whatever"}, "'rule' is 'whatever'"),
        ({"claim": ""}, "'claim' is ''; expected words"),
        ({"command": None}, "'command' is None"),
    ],
)
def test_what_is_no_result_is_refused_and_nothing_is_written(change, said, tmp_path):
    path = tmp_path / "net.json"
    path.write_text("before")
    with pytest.raises(UserError) as error:
        claims.write(path, {**MEASURED, **change})
    assert said in str(error.value) and str(path) in str(error.value)
    assert path.read_text() == "before"


def test_new_results_may_lack_nothing_and_older_ones_what_was_not_kept():
    claims.check(MEASURED)
    assert "versions" in claims.lacking(MEASURED)
    with pytest.raises(UserError, match="it lacks 'versions'"):
        claims.check({**MEASURED, "format": 2})
    with pytest.raises(UserError, match="it lacks 'command'"):
        claims.check({name: value for name, value in MEASURED.items() if name != "command"})


def test_older_names_are_read_as_todays(tmp_path):
    path = tmp_path / "old.json"
    other = {name: value for name, value in MEASURED.items() if name != "device"}
    path.write_text(json.dumps({**other, "machine": "a CPU", "packages": {"jax": "1"}}))
    found = claims.load(path)
    assert found["device"] == "a CPU" and found["versions"] == {"jax": "1"}


@pytest.mark.parametrize("text", ["{", "[1]", '"words"'])
def test_a_file_that_is_something_else_is_refused(text, tmp_path):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=r"bad\.json"):
        claims.load_all(tmp_path)


def test_another_folder_can_be_named(monkeypatch, tmp_path):
    assert (claims.root() / "results").is_dir()
    monkeypatch.setenv("IMGREC_MEASURED", str(tmp_path))
    assert claims.root() == tmp_path
