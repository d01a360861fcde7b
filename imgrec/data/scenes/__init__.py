"""Synthetic scenes: one procedural world in which every difficulty is a dial.

A scene is a pure function of (seed, index, knobs), and its picture a pure function of the
scene: coloured shapes on a background, of which all is known. So any number of labelled images
needs no download, and an experiment can turn one factor and leave all others as they are.

    from imgrec.data import scenes
    shown = scenes.scene(0, 5, scenes.Knobs(n_objects=(2, 4), occlusion=0.3, resolution=64))
    scenes.render(shown)     # uint8[64, 64, 3]
    scenes.truth(shown)      # masks, boxes, visible shares, relations
    scenes.captions(shown)   # ("a red circle and a blue star", ...)
    scenes.questions(shown)  # (Question("count", "How many stars are there?", "1"), ...)
"""

from imgrec.data.scenes.knobs import Knobs, Options, parse
from imgrec.data.scenes.language import Question, captions, questions
from imgrec.data.scenes.render import render
from imgrec.data.scenes.shapes import COLOURS, SHAPES
from imgrec.data.scenes.source import SceneSource, load
from imgrec.data.scenes.truth import Relation, Truth, masks, truth, whole_masks
from imgrec.data.scenes.world import Background, Card, Dash, Scene, Thing, scene

__all__ = [
    "COLOURS",
    "SHAPES",
    "Background",
    "Card",
    "Dash",
    "Knobs",
    "Options",
    "Question",
    "Relation",
    "Scene",
    "SceneSource",
    "Thing",
    "Truth",
    "captions",
    "load",
    "masks",
    "parse",
    "questions",
    "render",
    "scene",
    "truth",
    "whole_masks",
]
