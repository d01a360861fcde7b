"""Studies of what a change of the recipe is worth: named changes, each trained once a seed."""

from imgrec.ablation.study import Change, Published, Rate, Study, StudyRun, check, resolve

__all__ = ["Change", "Published", "Rate", "Study", "StudyRun", "check", "resolve"]
