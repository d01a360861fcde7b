import copy
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt

from imgrec.config import to_dict
from imgrec.evaluation import label_errors, metrics
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.groups.groups import groups
from imgrec.reporting import cards

NAMES = ["cat", "<dog>", "o|wl"]
INFO = {"class_names": NAMES, "image_shape": (8, 8, 1), "source": "a <folder>"}
LAUNCH = {
    "started": "2026-01-02T03:04:05+00:00",
    "command": "python -m imgrec.main --config=a.py",
    "git_revision": "ab12cd",
    "git_dirty": True,
    "devices": ["cpu"],
    "processor": "some CPU",
    "packages": {"jax": "0.10.2", "gone": None},
}
COST = {"parameters": 61_706, "flops": 1.2e8}


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    logits = rng.normal(size=(600, 3)).astype(np.float32)
    site = np.array(["north", "south"])[rng.integers(0, 2, 600)]
    logits[np.arange(600), labels] += np.where(site == "north", 5, 1)
    site[:5] = "few"
    found = metrics.classification(logits, labels, NAMES, resamples=100)
    return found | {
        "dataset": "own",
        "split": "test",
        "step": 60,
        "calibration": calibration.calibration(logits, labels, logits, labels),
        "groups": groups(logits, labels, NAMES, {"site": site, "id": np.arange(600)}, count=100),
        "label_errors": label_errors.label_errors(logits, labels, NAMES, count=100),
        "robustness": {
            "n": 600,
            "profile": "cifar_c",
            "clean_accuracy": 0.9,
            "mean_corrupted_accuracy": 0.5,
            "per_kind": [
                {"name": "fog", "category": "weather", "accuracy": 0.7, "intervals": {}},
                {"name": "blur", "category": "blur", "accuracy": 0.3, "intervals": {}},
            ],
            "worst_conditions": [{"kind": "blur", "severity": 5, "accuracy": 0.1}],
        },
        "sweeps": {
            "curves": {
                "rotation": {"half_accuracy_dose": 31.4, "unit": "degrees", "accuracy": [0.9, 0.2]},
                "contrast": {"half_accuracy_dose": None, "unit": "", "accuracy": [0.9, 0.8]},
            }
        },
        "adversarial": {
            "epsilons": [1 / 255],
            "fgsm": {"accuracy": [0.4]},
            "pgd": {"accuracy": [0.2]},
        },
        "unseen": {
            "sets": {
                "toys": {
                    "n": 600,
                    "n_ood": 50,
                    "best_score": "energy",
                    "scores": {"energy": {"auroc": 0.87, "rejected": 0.3, "intervals": {}}},
                },
                "none": {"n": 600, "n_ood": 0, "best_score": None, "scores": {}},
            }
        },
    }


@pytest.fixture
def experiment(tiny):
    return to_dict(tiny)


def card(experiment, found, **more):
    given = {"launch": LAUNCH, "cost": COST, "seconds": {"total": 75.0}}
    return cards.model_card(experiment, INFO, found, **given | more)


def html(text):
    return MarkdownIt("commonmark").enable("table").render(text)


def test_it_has_the_parts_of_the_paper_in_its_order(experiment, measured):
    titles = re.findall(r"^## (.*)$", card(experiment, measured), re.M)
    assert titles == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Limits that were measured",
        "Ethical considerations",
        "Caveats and recommendations",
        "Cost",
        "How to reproduce",
    ]


def test_what_was_measured_is_told_with_n_and_interval(experiment, measured):
    text = card(experiment, measured).replace("\\", "")
    low, high = measured["intervals"]["accuracy"]
    value = f"{100 * measured['accuracy']:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
    assert f"| accuracy | {value} |" in text and "| images | 600 |" in text
    for group in measured["groups"]["columns"]["site"]["groups"]:
        assert f"| site | {group['value']} | {group['n']} | {100 * group['accuracy']:.1f} %" in text
    assert "Too small to say (fewer than 20 images): site = few (5)." in text
    assert "id: The column 'id' has another whole number" in text
    assert f"The temperature {measured['calibration']['temperature']:.3f} was fitted on 600" in text
    assert "| blur | blur | 30.0 % |" in text and text.index("| blur |") < text.index("| fog |")
    assert "| rotation | 31.4 degrees | 20.0 % |" in text
    assert "| contrast | never, in the range tried | 80.0 % |" in text
    assert "| 1/255 | 40.0 % | 20.0 % |" in text
    assert (
        "Images of toys (n 50) are told from its own (n 600) by energy with an AUROC of 0.870"
        in text
    )
    assert "| parameters | 61,706 |" in text and "120 MFLOP" in text and "1 min 15 s" in text
    assert "python -m imgrec.main --config=a.py" in text
    assert "Git revision ab12cd, with changes that are in git.diff of the run folder." in text
    assert "With jax 0.10.2." in text and "| model.name | resnet8 |" in text
    assert "Not measured" not in text


def test_limits_are_the_weaknesses(experiment, measured):
    limits = card(experiment, measured).partition("## Limits that were measured")[2]
    limits = limits.partition("\n## ")[0]
    assert "By site, the group south has an accuracy of" in limits
    assert "blur at severity 5 leaves least" in limits
    assert "Most images of toys" in limits


def test_what_was_not_measured_is_said_and_nothing_is_invented(experiment):
    bare = {"accuracy": 0.5, "n": 10, "missing": {"groups": "it needs the images"}}
    text = cards.model_card(experiment, {}, bare)
    assert text.count("Not measured") == 9
    assert "Not measured: it needs the images." in text
    assert "--suite=full` would measure it" in text and "--ood=DATASET` would measure it" in text
    assert "None could be told from what was measured" in text
    assert "The command is not known" in text and "| parameters | – |" in text
    nothing = cards.model_card(experiment, {}, {})
    assert "there are no metrics of the test split" in nothing


def test_blanks_are_marked_and_what_the_owner_wrote_is_kept(experiment, measured):
    text = card(experiment, measured)
    blanks = re.findall(r"<!-- owner:(\w+) -->\n> \*\*To be filled in by the owner:\*\*", text)
    assert len(blanks) == len(set(blanks)) == 8
    question = re.search(r"<!-- owner:intended_use -->\n(.*?)\n<!--", text)[1]
    written = text.replace(question, "Sorting *my* owls.")
    changed = copy.deepcopy(measured) | {"step": 61}
    again = card(experiment, changed, previous=written)
    assert "Sorting *my* owls." in again and question not in again
    assert again == card(experiment, changed).replace(question, "Sorting *my* owls.")


def test_what_a_user_named_is_text(experiment, measured):
    experiment["name"] = "run <b>*x*</b>"
    text = card(experiment, measured)
    rendered = html(re.sub(r"<!--.*?-->", "", text, flags=re.S))
    for element in ("<b>", "<dog>", "<folder>", "<em>"):
        assert element not in rendered
    assert "o|wl" in rendered and "&lt;dog&gt;" in rendered
    for row in re.findall(r"<tr>.*?</tr>", rendered, re.S):
        assert row.count("<td") + row.count("<th") >= 2


def test_a_diverged_model_has_a_card(experiment):
    logits, labels = np.full((60, 3), np.nan), np.arange(60) % 3
    found = metrics.classification(logits, labels, NAMES, resamples=20)
    found |= {"loss": None, "calibration": calibration.calibration(logits, labels)}
    text = card(experiment, found)
    assert re.search("Not measured: .*No example has finite logits", text)
    assert "| negative log likelihood (nats) | – |" in text
