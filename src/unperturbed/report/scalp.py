r"""Where electrodes lie on a head that is seen from above, and what happens there.

Source of the positions: montage ``standard_1020`` of MNE-Python. A sphere is fitted to all its electrodes by least
squares; one at the polar angle :math:`\theta` from the vertex and the azimuth :math:`\phi` lies at
:math:`(\theta / 90°)(\cos \phi, \sin \phi)`: the nose is above, the edge of the disc is 90° from the vertex. The table
saves the installation of MNE; a test computes it again where that is installed.
"""

from __future__ import annotations

import math

import altair as alt

from unperturbed.report import tables
from unperturbed.report.drawing import INK

POSITIONS = {
    "Pz": (-0.002, -0.409), "P3": (-0.393, -0.455), "P7": (-0.783, -0.610), "O1": (-0.276, -0.879),
    "Oz": (-0.005, -0.883), "O2": (0.269, -0.882), "P4": (0.398, -0.449), "P8": (0.782, -0.611),
    "P1": (-0.193, -0.421), "P5": (-0.589, -0.518), "PO7": (-0.542, -0.791), "PO3": (-0.297, -0.672),
    "POz": (-0.004, -0.641), "PO4": (0.290, -0.679), "PO8": (0.538, -0.794), "P6": (0.587, -0.519),
    "P2": (0.202, -0.415),
}  # fmt: skip
NOSE = ((-0.12, 0.99), (0.0, 1.15), (0.12, 0.99))
SIDE = 128  # of one head, in pixels of the screen


def outline() -> list[tables.Row]:
    """Return the head, seen from above: the points of a circle and of a nose, each in its order."""
    circle = [(math.sin(step * math.pi / 30), math.cos(step * math.pi / 30)) for step in range(61)]
    return [
        {"part": part, "order": order, "right": round(right, 4), "front": round(front, 4)}
        for part, points in (("head", circle), ("nose", NOSE))
        for order, (right, front) in enumerate(points)
    ]


def heads(rows: list[tables.Row], colour: alt.Color, *, panels: list[str], times: list[str]) -> alt.TopLevelMixin:
    """Draw one head for each panel (downwards) and time (to the right), with a disc for each electrode.

    Args:
        rows: with ``panel``, ``time``, ``channel``, ``right``, ``front``, what ``colour`` names, and ``surviving``.
        colour: of the discs; a surviving one has a rim.
        panels: in their order.
        times: as they are written, in their order.
    """
    size = alt.Scale(domain=[-1.2, 1.2], nice=False)
    x = alt.X("right:Q", axis=None, scale=size)
    y = alt.Y("front:Q", axis=None, scale=size)
    lines = (
        alt.Chart(alt.Data(values=outline()))
        .mark_line(color=INK, opacity=0.45, strokeWidth=1)
        .encode(x=x, y=y, detail="part:N", order="order:Q")
    )
    discs = (
        alt.Chart()
        .mark_circle(size=95, opacity=1, stroke=INK, strokeWidth=0.5, strokeOpacity=0.4)
        .encode(x=x, y=y, color=colour)
    )
    rims = (
        alt.Chart()
        .mark_point(size=105, color=INK, strokeWidth=1.4)
        .transform_filter("datum.surviving")
        .encode(x=x, y=y)
    )
    return (
        alt.layer(lines, discs, rims, data=alt.Data(values=rows))
        .properties(width=SIDE, height=SIDE)
        .facet(
            row=alt.Row(
                "panel:N", sort=panels, title=None, header=alt.Header(labelAngle=0, labelAlign="left", labelLimit=160)
            ),
            column=alt.Column("time:N", sort=times, title=None),
            spacing=4,
        )
    )
