"""Adversarial examples as rows of small pictures with their words."""

from __future__ import annotations

from typing import NamedTuple

from unperturbed.report.content import Content, Picture
from unperturbed.report.numbers import TIMES, radius
from unperturbed.report.pictures import data_uri, magnified


class Tile(NamedTuple):
    """One small picture with its words."""

    image: str
    alt: str
    head: str
    text: str
    fooled: bool = False


class Example(NamedTuple):
    """A test image and what became of it."""

    title: str
    tiles: list[Tile]


class Album(NamedTuple):
    """The examples of one attack on one architecture."""

    title: str
    examples: list[Example]


def example(picture: Picture) -> Example:
    """Return a picture as tiles: the original, then each adversarial image followed by its magnified difference."""
    tiles = [
        Tile(data_uri(picture.original), f"test image of class {picture.label}", "original",
             f"called {picture.prediction}", picture.prediction != picture.label)
    ]  # fmt: skip
    for shown, (factor, difference) in zip(picture.adversarial, magnified(picture), strict=True):
        eps = radius(shown.eps)
        fooled = shown.prediction != picture.label
        tiles.append(Tile(data_uri(shown.image), f"adversarial at ε = {eps}", f"ε = {eps}",
                          f"called {shown.prediction}", fooled))  # fmt: skip
        tiles.append(Tile(data_uri(difference), f"change at ε = {eps}, magnified {factor} times",
                          f"change {TIMES} {factor}", f"at ε = {eps}"))  # fmt: skip
    title = f"{picture.condition}: original label {picture.label}, attack {picture.attack}"
    wrong = dict.fromkeys(shown.prediction for shown in picture.adversarial if shown.prediction != picture.label)
    return Example(f"{title}, called {' or '.join(wrong) or picture.label}", tiles)


def albums(content: Content) -> list[Album]:
    """Return the pictures by architecture and attack, in the order in which they came."""
    found: dict[str, list[Example]] = {}
    for picture in content.pictures:
        found.setdefault(f"{picture.architecture} under {picture.attack}", []).append(example(picture))
    return [Album(title, examples) for title, examples in found.items()]
