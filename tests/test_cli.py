import re
import sys

import pytest
from absl import flags

from imgrec import cli, config, validation
from imgrec.config import Experiment
from imgrec.errors import UserError

GOOD = """
from ml_collections import ConfigDict
from imgrec.config import Experiment, ModelConfig


def get_config(arg=""):
    options = ConfigDict({"width": 4, "rate": 0.1, "norm": True, "act": "relu", "sizes": (1, 2)})
    return Experiment(seed=int(arg or 5), model=ModelConfig(name="small_cnn", options=options))
"""


def define(flag_values):
    flags.DEFINE_string("workdir", "", "the run folder", flag_values=flag_values)
    flags.DEFINE_bool("dry_run", False, "stop early", flag_values=flag_values)


@pytest.fixture
def write(tmp_path):
    def write_config(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write_config


@pytest.fixture
def good(write):
    return f"--config={write('good', GOOD)}"


def parsed(*arguments):
    return cli.parse(["imgrec", *arguments], define)


def test_gives_the_experiment_of_the_file_and_the_flags(good):
    experiment, flag_values = parsed(good, "--workdir=runs/x", "--dry_run")
    assert isinstance(experiment, Experiment)
    assert experiment.seed == 5
    assert flag_values.workdir == "runs/x"
    assert flag_values.dry_run
    validation.validate(experiment)


def test_an_experiment_is_named_after_its_file_and_argument(good, write):
    assert parsed(good)[0].name == "good"
    assert parsed(f"{good}:7")[0].name == "good_7"
    assert parsed(good, "--config.name=mine")[0].name == "mine"
    named = write("named", GOOD.replace("seed=", "name='own', seed="))
    assert parsed(f"--config={named}")[0].name == "own"


def test_the_argument_after_the_colon_goes_to_get_config(good):
    assert parsed(f"{good}:7")[0].seed == 7


def test_flag_and_value_may_be_two_words(good):
    path = good.partition("=")[2]
    experiment, flag_values = parsed("--config", path, "--config.seed", "3", "--workdir", "here")
    assert (experiment.seed, flag_values.workdir) == (3, "here")


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("train.duration=2ep", "train", "duration", "2ep"),
        ("data.batch_size=96", "data", "batch_size", 96),
        ("mesh.data=-1", "mesh", "data", -1),
        ("optimizer.learning_rate=3e-4", "optimizer", "learning_rate", 3e-4),
        ("optimizer.learning_rate=1", "optimizer", "learning_rate", 1.0),
        ("augment.flip=true", "augment", "flip", True),
        ("augment.flip", "augment", "flip", True),
        ("log.tensorboard=false", "log", "tensorboard", False),
        ("augment.mean=(0.5,0.25)", "augment", "mean", (0.5, 0.25)),
        ("augment.mean=(0.5,)", "augment", "mean", (0.5,)),
        ("optimizer.freeze=('stem/.*','c1/.*')", "optimizer", "freeze", ("stem/.*", "c1/.*")),
        ("optimizer.freeze=stem/.*", "optimizer", "freeze", ("stem/.*",)),
        ("optimizer.weight_decay_rules=()", "optimizer", "weight_decay_rules", ()),
        (
            "optimizer.learning_rate_rules=(('head/.*',10.0),('.*',1.0))",
            "optimizer",
            "learning_rate_rules",
            (("head/.*", 10.0), (".*", 1.0)),
        ),
        ("mesh.rules=(('.*','-,tensor'),)", "mesh", "rules", ((".*", "-,tensor"),)),
    ],
)
def test_any_field_can_be_set_with_its_own_type(good, override, section, field, value):
    experiment, _ = parsed(good, f"--config.{override}")
    found = getattr(getattr(experiment, section), field)
    assert found == value
    assert type(found) is type(value)


def test_no_before_a_flag_is_false(good):
    assert parsed(good, "--noconfig.log.tensorboard")[0].log.tensorboard is False


def test_the_last_of_two_values_counts(good):
    assert parsed(good, "--config.seed=1", "--config.seed=2")[0].seed == 2


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("width=8", "width", 8),
        ("rate=0.5", "rate", 0.5),
        ("norm=false", "norm", False),
        ("act=gelu", "act", "gelu"),
        ("sizes=(3,4)", "sizes", (3, 4)),
        # Options that the file does not have take the type they are written in.
        ("new=8", "new", 8),
        ("new=1e-3", "new", 1e-3),
        ("new=relu", "new", "relu"),
        ("new=true", "new", True),
        ("new=False", "new", False),
        ("new=('50%','75%')", "new", ("50%", "75%")),
    ],
)
def test_options_can_be_set_and_added(good, override, name, value):
    found = parsed(good, f"--config.model.options.{override}")[0].model.options[name]
    assert found == value
    assert type(found) is type(value)


def test_options_of_a_section_without_any_can_be_added(good):
    experiment, _ = parsed(good, "--config.optimizer.options.momentum=0.5")
    assert experiment.optimizer.options.to_dict() == {"momentum": 0.5}


MISTAKES = {
    "no config": ([], ["No experiment given", "--config=configs/digits_lenet.py"]),
    "config without a value": (["--config"], ["No experiment given"]),
    "no such file": (["--config={folder}/god.py"], ["No config file", "Did you mean", "good.py"]),
    "no such folder": (["--config=nowhere/x.py"], ["No config file 'nowhere/x.py'"]),
    "syntax": (["--config={syntax}"], ["syntax.py", "line 2", "does not work: SyntaxError"]),
    "no get_config": (["--config={empty}"], ["defines no get_config", "get_config(arg='')"]),
    "returns something else": (["--config={number}"], ["returned int", "imgrec.config.Experiment"]),
    "returns nothing": (["--config={nothing}"], ["returned NoneType"]),
    "raises": (["--config={raises}"], ["raises.py", "line 3", "KeyError: 'b'"]),
    "fails to import": (["--config={imports}"], ["line 1", "No module named 'not_there'"]),
    "takes no argument": (["--config={plain}:x"], ["plain.py:x", "takes 0 positional arguments"]),
    "wrong argument": (["{good}:x"], ["line 8", "ValueError", "'x'"]),
    "unknown section": (
        ["{good}", "--config.trian.duration=2ep"],
        ["Unknown field config.trian.duration", "Did you mean config.train.duration?"],
    ),
    "unknown field": (
        ["{good}", "--config.train.duraton=2ep"],
        ["Unknown field config.train.duraton", "Did you mean config.train.duration?"],
    ),
    "field without its section": (
        ["{good}", "--config.batch_size=1"],
        ["Unknown field config.batch_size", "Did you mean config.data.batch_size?"],
    ),
    "negated unknown field": (["{good}", "--noconfig.log.tensorbord"], ["config.log.tensorboard?"]),
    "field of a field": (["{good}", "--config.seed.x=1"], ["Unknown field config.seed.x"]),
    "no field": (["{good}", "--config.=1"], ["Unknown field config.."]),
    "section": (["{good}", "--config.log=1"], ["is a section", "config.log.every, config.log.te"]),
    "nested option": (["{good}", "--config.model.options.a.b=1"], ["one name after", "'a.b'"]),
    "nameless option": (["{good}", "--config.model.options.=1"], ["one name after"]),
    "int": (["{good}", "--config.seed=1.5"], ["--config.seed=1.5: expected int, as in 0."]),
    "float": (["{good}", "--config.train.ema=x"], ["--config.train.ema=x: expected float"]),
    "bool": (["{good}", "--config.augment.flip=maybe"], ["=maybe: expected true or false"]),
    "option": (["{good}", "--config.model.options.width=x"], ["model.options.width=x", "int"]),
    "no value": (["{good}", "--config.seed"], ["Missing value for --config.seed"]),
    "unknown flag": (
        ["{good}", "--wrkdir=x"],
        ["Unknown flag --wrkdir", "Did you mean --workdir?"],
    ),
    "value of a flag": (["{good}", "--dry_run=maybe"], ["--dry_run=maybe"]),
    "override first": (["--config.seed=1", "{good}"], ["--config.seed=1", "before"]),
    "word without a flag": (["{good}", "2ep"], ["Arguments without a flag: 2ep."]),
    "flag file": (["{good}", "--flagfile=nowhere"], ["nowhere"]),
}


@pytest.fixture
def places(write, good, tmp_path):
    return {
        "folder": tmp_path,
        "good": good,
        "syntax": write("syntax", "import os\ndef get_config(:\n"),
        "empty": write("empty", "x = 1\n"),
        "number": write("number", "def get_config(arg=''):\n    return 3\n"),
        "nothing": write("nothing", "def get_config(arg=''):\n    pass\n"),
        "raises": write("raises", "known = {}\ndef get_config(arg=''):\n    return known['b']\n"),
        "imports": write("imports", "import not_there\n"),
        "plain": write("plain", GOOD.replace('arg=""', "").replace("int(arg or 5)", "5")),
    }


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_readable_message_and_exit_code_2(mistake, places, monkeypatch, capsys):
    arguments, fragments = MISTAKES[mistake]
    monkeypatch.setattr(sys, "argv", ["imgrec", *(a.format(**places) for a in arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.run(lambda argv: cli.parse(argv, define) and 0)
    printed = capsys.readouterr()
    assert exit_.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    for fragment in fragments:
        assert fragment in printed.err


def test_an_error_that_a_config_file_raises_for_its_user_is_passed_on(write):
    text = (
        "from imgrec.errors import UserError\ndef get_config(arg=''):\n    raise UserError('so')\n"
    )
    with pytest.raises(UserError, match=r"^so$"):
        parsed(f"--config={write('refuses', text)}")


@pytest.mark.parametrize("code", [0, 1, 75])
def test_run_exits_with_the_code_of_the_verb(code, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["imgrec", "--x"])
    seen = []
    with pytest.raises(SystemExit) as exit_:
        cli.run(lambda argv: seen.append(argv) or code)
    assert exit_.value.code == code
    assert seen == [["imgrec", "--x"]]


def test_run_leaves_errors_that_are_not_the_users_alone():
    def broken(argv):
        raise RuntimeError("ours to mend")

    with pytest.raises(RuntimeError, match="ours to mend"):
        cli.run(broken)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_flag_and_field(flag, capsys):
    with pytest.raises(SystemExit) as exit_:
        parsed(flag)
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "--workdir: the run folder (default: '')" in text
    assert "config.train.duration = '10ep'" in text
    listed = re.findall(r"^  config\.(\S+) = ", text, re.MULTILINE)
    plain = config.flatten(config.to_dict(Experiment()))
    assert set(listed) >= set(plain)
    assert {name.rpartition(".")[2] for name in set(listed) - set(plain)} == {"options"}
