"""Eight cartoons and animals: proportions that no drawn person has, for test sets (paper, appendix D)."""

import dataclasses

from mimicmotion_jax.synthetic.appearance import Character, Colour, Fabric, make_character
from mimicmotion_jax.synthetic.skeleton import Proportions


def _cartoon(number: int, body: Proportions, **looks: object) -> Character:
    """Give person `number` another body and other looks."""
    return dataclasses.replace(make_character(number), body=body, **looks)


def _animal(number: int, body: Proportions, ears: str, fur: Colour, **looks: object) -> Character:
    """Cover person `number` with fur."""
    return _cartoon(number, body, skin=fur, hair=fur, hair_style=ears, blush=0.1, **looks)


# Legs of about half the usual length, heads of up to twice the usual size; paws are short hands on thick arms.
_TODDLER = Proportions(head=1.75, spine=0.24, upper_arm=0.11, forearm=0.1, hand=0.09, thigh=0.13, calf=0.13, girth=1.15)
_SUPERHERO = Proportions(
    head=0.85, shoulder=0.15, spine=0.3, upper_arm=0.18, forearm=0.165, thigh=0.22, calf=0.2, waist=1.1
)
_BEANPOLE = Proportions(
    head=1.1, shoulder=0.09, spine=0.25, upper_arm=0.19, forearm=0.19, thigh=0.32, calf=0.32, girth=0.8
)
_DWARF = Proportions(
    head=1.5, shoulder=0.125, spine=0.29, upper_arm=0.12, forearm=0.1, thigh=0.11, calf=0.1, girth=1.45
)
_BEAR = Proportions(
    head=1.6, shoulder=0.12, spine=0.32, upper_arm=0.12, forearm=0.11, hand=0.08, thigh=0.12, calf=0.11, girth=1.5
)
_CAT = Proportions(
    head=1.65, shoulder=0.085, spine=0.27, upper_arm=0.12, forearm=0.12, hand=0.08, thigh=0.15, calf=0.14
)
_RABBIT = Proportions(head=1.5, shoulder=0.085, spine=0.25, upper_arm=0.1, forearm=0.1, hand=0.08, thigh=0.17, calf=0.2)
_MOUSE = Proportions(
    head=1.9, shoulder=0.08, spine=0.22, upper_arm=0.12, forearm=0.12, hand=0.09, thigh=0.12, calf=0.12
)

CARTOONS = (
    _cartoon(1, _TODDLER, hair_style="bob", skirt=0.0),
    _cartoon(3, _SUPERHERO, hair_style="short", skirt=0.0, sleeves=2.0, legs=2.0),
    _cartoon(5, _BEANPOLE, hair_style="cap", skirt=0.0, sleeves=1.0, legs=2.0),
    _cartoon(7, _DWARF, hair_style="beanie", skirt=0.0, sleeves=2.0, legs=2.0),
    _animal(9, _BEAR, "bear", (146, 100, 62), skirt=0.0, legs=0.7, sleeves=0.0),
    _animal(11, _CAT, "cat", (226, 150, 74), top=Fabric((70, 110, 170)), skirt=0.0, legs=0.7, sleeves=0.75),
    _animal(13, _RABBIT, "rabbit", (226, 220, 212), skirt=0.8, legs=0.0, sleeves=0.75),
    _animal(15, _MOUSE, "mouse", (150, 148, 156), skirt=0.0, legs=0.7, sleeves=1.0),
)
"""A toddler, a superhero, a beanpole, a dwarf, a bear, a cat, a rabbit and a mouse."""
