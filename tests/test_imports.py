"""Imports never climb a floor, and the core never needs TensorFlow or torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {
        "main",
        "evaluate",
        "predict",
        "report",
        "prepare",
        "export",
        "bench",
        "sweep",
        "reproduce",
        "ablate",
        "cli",
        "console",
    },
    {"benchmarking", "reproduction", "ablation"},
    {"classical"},
    {"training", "evaluation", "reporting", "transfer", "launching", "claims"},
    {"tasks"},
    {"models", "data", "augment", "corruptions"},
    {"native"},
    {
        "config",
        "durations",
        "errors",
        "extensions",
        "fields",
        "files",
        "options",
        "randomness",
        "validation",
    },
]
FORBIDDEN = {
    "models": {"data"},
    "data": {"models", "augment", "corruptions"},
    "corruptions": {"models", "data"},
    "evaluation": {"training", "tasks"},
    "reporting": {"training"},
    "claims": {"training", "evaluation", "reporting", "transfer", "launching", "models", "data"},
    "launching": {"training", "evaluation", "reporting", "transfer", "tasks", "models", "data"},
    "transfer": {"training", "evaluation", "reporting", "tasks", "data", "augment"},
}
MODULES = sorted((ROOT / "imgrec").rglob("*.py"))


def package(path: Path) -> str:
    if path.name == "__main__.py":  # the verb of a package, on the verbs' floor
        return "main"
    return path.relative_to(ROOT / "imgrec").parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def imported(path: Path) -> set[str]:
    """The packages of imgrec that a file imports, by name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "imgrec":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imgrec."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("imgrec.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_climbs(path):
    name = package(path)
    if name == "__init__":
        assert not imported(path)
        return
    for other in imported(path) - {name}:
        assert floor(other) >= floor(name), f"{name} imports {other}"
        assert other not in FORBIDDEN.get(name, set()), f"{name} imports {other}"


def test_no_module_is_a_drawer_for_everything():
    names = {path.stem for path in MODULES}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_a_start_imports_neither_tensorflow_nor_torch_nor_what_draws():
    """The last two may be needed later, and cost seconds that no command should wait for."""
    code = (
        "import sys, imgrec.main; "
        "print([m for m in ('tensorflow', 'torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
