"""RandAugment of clips: two random operations at one strength, the same for all frames of a clip.

Source: Cubuk et al. 2020 (arXiv 1909.13719), with torchvision's ranges. Of its operations those
that are an affine map or a color matrix, so that they are part of the one sampling and cost
nothing. Left out: posterize, solarize, sharpness, autocontrast and equalize.
"""

import math

import numpy as np

from .color import color_matrix

MAX_STRENGTH = 30
NUM_OPERATIONS = 2  # of a clip
GEOMETRIC = {  # what each does at MAX_STRENGTH: normalized coordinates, share of the side, degrees
    "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331,
    "rotate": 30.0,
}  # fmt: skip
COLOR = ("brightness", "contrast", "saturation")  # factors in 1 +- 0.9
OPERATIONS = ("identity", *GEOMETRIC, *COLOR)
_MAX_FACTOR_CHANGE = 0.9

Drawn = list[tuple[str, float]]  # operations and their signed strength, -1..1


def draw_operations(strength: float, random: np.random.Generator) -> Drawn:
    """strength: 0..MAX_STRENGTH of every operation; its sign is drawn, too."""
    names = random.integers(len(OPERATIONS), size=NUM_OPERATIONS)
    signs = random.choice((-1.0, 1.0), NUM_OPERATIONS)
    return [
        (OPERATIONS[name], float(sign * strength / MAX_STRENGTH))
        for name, sign in zip(names, signs, strict=True)
    ]


def affine_matrix(drawn: Drawn, size: tuple[int, int]) -> np.ndarray:
    """The geometric operations as a [3,3] map of normalized output coordinates. size: (h, w)."""
    matrix, aspect = np.eye(3), size[0] / size[1]
    for name, amount in drawn:
        value = GEOMETRIC.get(name, 0.0) * amount
        step = np.eye(3)
        if name == "shear_x":
            step[0, 1] = value * aspect
        elif name == "shear_y":
            step[1, 0] = value / aspect
        elif name in ("translate_x", "translate_y"):
            step[0 if name == "translate_x" else 1, 2] = 2 * value  # the side is 2 long
        elif name == "rotate":
            cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
            step[:2, :2] = [[cos, -sin * aspect], [sin / aspect, cos]]
        matrix = matrix @ step
    return matrix


def add_colors(drawn: Drawn, matrix: np.ndarray) -> np.ndarray:
    """A color matrix [3,4], then the color operations -> [3,4]."""
    for name, amount in drawn:
        if name in COLOR:
            factors = dict.fromkeys(COLOR, 1.0) | {name: 1 + _MAX_FACTOR_CHANGE * amount}
            step = color_matrix(**factors)
            matrix = np.hstack(
                [step[:, :3] @ matrix[:, :3], step[:, :3] @ matrix[:, 3:] + step[:, 3:]]
            )
    return matrix
