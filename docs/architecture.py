"""Draw the package's rooms and their imports, and list them in docs/architecture.md.

    python docs/architecture.py

Reads all imports with `ast`, so that picture and list show the code as it is. A room is a subpackage or a module at the
top of the package. `tests/test_architecture.py` checks the same imports.
"""

import ast
import graphlib
import itertools
import math
import re
import textwrap
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mimicmotion_jax"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "architecture.png"

FLOORS = (
    ("cli",),
    ("app",),
    ("evaluation", "pipeline", "training"),
    ("inference", "data"),
    ("convert", "checkpoint"),
    ("sharding",),
    ("metrics", "diffusion", "models", "pages", "pose", "provenance", "video"),
    ("config", "runtime"),
)
"""Rooms from top to bottom: a room imports only from floors below its own, or from its own without a cycle."""

TOOLS = ("synthetic", "xla_report")
"""Rooms beside the product: of the product's rooms only `cli` imports them."""

HIDDEN = ("__init__", "__main__", "config_mistakes")
"""Modules that are no rooms: entry points, and the wording of errors for `config`."""


def imports() -> dict[str, set[str]]:
    """Rooms that each room imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
                parts = node.module.split(".")
                found[room] |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    return {room: (found[room] & rooms) - {room} for room in sorted(rooms)}


def arrows() -> list[tuple[str, str]]:
    """Imports between rooms without those that follow from others (the transitive reduction).

    Raises:
        graphlib.CycleError: rooms import each other.
    """
    graph = {room: used - set(HIDDEN) for room, used in imports().items() if room not in HIDDEN}
    reachable: dict[str, set[str]] = {}
    for room in graphlib.TopologicalSorter(graph).static_order():  # the imported before the importing
        reachable[room] = set().union(*({used} | reachable[used] for used in graph[room]))
    return [
        (room, used)
        for room in graph
        for used in sorted(graph[room])
        if not any(used in reachable[other] for other in graph[room] - {used})
    ]


def summary(room: str) -> str:
    """First sentence of a room's docstring."""
    path = PACKAGE / room / "__init__.py"
    path = path if path.exists() else PACKAGE / f"{room}.py"
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[a-z`)])\.(?: |$)", text)[0]


def table() -> str:
    """List of the rooms by floor, as a Markdown table."""
    rows = ["| floor | room | contents |", "| --- | --- | --- |"]
    for number, floor in enumerate((*FLOORS, TOOLS)):
        for room in floor:
            name = f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py"
            label = "beside" if floor is TOOLS else len(FLOORS) - number
            rows.append(f"| {label} | `{name}` | {summary(room)} |")
    return "\n".join(rows) + "\n"


WIDTH, HEIGHT, GAP_X, GAP_Y = 2.55, 1.0, 0.6, 0.85  # of a box and between boxes, inches
COLOURS = ("#31487a", "#37599a", "#3d6a9e", "#3f8ea3", "#3f9d82", "#6ba368", "#a8a04d", "#8a7f72")
TOOL_COLOUR = "#9a5d7c"


def places() -> dict[str, tuple[float, float]]:
    """Centres of the rooms' boxes, in inches."""
    centres = {}
    for number, floor in enumerate(FLOORS):
        y = -(HEIGHT + GAP_Y) * number
        for place, room in enumerate(floor):
            centres[room] = ((place - (len(floor) - 1) / 2) * (WIDTH + GAP_X), y)
    side = (max(map(len, FLOORS)) / 2) * (WIDTH + GAP_X) - WIDTH / 2 - GAP_X / 2
    for number, room in enumerate(TOOLS):
        centres[room] = (side, -(HEIGHT + GAP_Y) * number)
    return centres


def draw() -> None:
    """Draw the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    centres = places()
    xs, ys = zip(*centres.values(), strict=True)
    left, right = min(xs) - WIDTH / 2 - 0.3, max(xs) + WIDTH / 2 + 0.3
    bottom, top = min(ys) - HEIGHT / 2 - 0.3, max(ys) + HEIGHT / 2 + 0.3
    figure = plt.figure(figsize=(right - left, top - bottom), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    colours = {room: COLOURS[floor] for room, floor in floor_of.items()} | dict.fromkeys(TOOLS, TOOL_COLOUR)
    for (room, _), points in _routes(arrows(), centres).items():
        axes.add_patch(
            FancyArrowPatch(
                path=_smooth(points),
                arrowstyle="-|>,head_length=5,head_width=2.5",
                color=colours[room],
                linewidth=1.3,
                alpha=0.8,
                zorder=1,
            )
        )
    for room, (x, y) in centres.items():
        box = FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.12",
            facecolor="white", edgecolor=colours[room], linewidth=1.6, zorder=2,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(x, y + 0.31, room, ha="center", va="center", fontsize=12, weight="bold", color=colours[room])
        text = textwrap.fill(summary(room).replace("`", ""), 37, max_lines=4, placeholder=" …")
        axes.text(x, y - 0.13, text, ha="center", va="center", fontsize=7.5, color="#333333")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Software": None})
    plt.close(figure)


Point = tuple[float, float]


def _routes(edges: list[tuple[str, str]], centres: dict[str, Point]) -> dict[tuple[str, str], list[Point]]:
    """Points that each arrow runs through: from border to border, and through gaps of the floors between."""
    starts, ends = _ports(edges, centres)
    used: Counter[Point] = Counter()
    routes = {}
    for edge in sorted(edges, key=lambda edge: abs(starts[edge][0] - ends[edge][0])):
        (x0, y0), (x1, y1) = starts[edge], ends[edge]
        points = [(x0, y0)]
        for y in sorted({y for _, y in centres.values() if y1 < y < y0}, reverse=True):
            line = x0 + (x1 - x0) * (y0 - y) / (y0 - y1)
            x = _gap(line, [x for x, floor in centres.values() if floor == y])
            number = used[x, y]
            used[x, y] += 1
            x += 0.13 * ((number + 1) // 2) * (-1) ** number
            points += [(x, y + HEIGHT / 2), (x, y - HEIGHT / 2)]
        routes[edge] = [*points, (x1, y1)]
    return routes


def _gap(x: float, boxes: list[float]) -> float:
    """Place nearest to `x` that is beside the boxes with these centres."""
    edges = [(WIDTH + GAP_X) / 2 * side + box for box in boxes for side in (-1, 1)]
    free = [edge for edge in edges if all(abs(edge - box) > WIDTH / 2 for box in boxes)]
    return x if all(abs(x - box) > WIDTH / 2 + 0.1 for box in boxes) else min(free, key=lambda edge: abs(edge - x))


def _smooth(points: list[Point]) -> Any:
    """Curve through points that is vertical at each of them, or a straight line between boxes of one floor."""
    from matplotlib.path import Path

    if points[0][1] == points[-1][1]:
        return Path(points)
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)


def _ports(
    edges: list[tuple[str, str]], centres: dict[str, Point]
) -> tuple[dict[tuple[str, str], Point], dict[tuple[str, str], Point]]:
    """Start and end of each arrow on the boxes' borders, spread so that arrows do not meet."""
    starts: dict[tuple[str, str], Point] = {}
    ends: dict[tuple[str, str], Point] = {}
    for room, (x, y) in centres.items():
        outgoing = sorted((edge for edge in edges if edge[0] == room), key=lambda edge: centres[edge[1]][0])
        incoming = sorted((edge for edge in edges if edge[1] == room), key=lambda edge: centres[edge[0]][0])
        for group, other_end, ports, side in ((outgoing, 1, starts, -1), (incoming, 0, ends, 1)):
            down = [edge for edge in group if centres[edge[other_end]][1] != y]
            for number, edge in enumerate(down):
                spread = (number - (len(down) - 1) / 2) * min(0.4, 0.8 * WIDTH / len(down))
                ports[edge] = (x + spread, y + side * HEIGHT / 2)
            for edge in group:
                if edge not in down:  # sideways
                    ports[edge] = (x + math.copysign(WIDTH / 2, centres[edge[other_end]][0] - x), y)
    return starts, ends


def main() -> None:
    """Draw the picture and write the list."""
    before, after = PAGE.read_text().split("<!-- rooms -->\n")[0], PAGE.read_text().split("<!-- end of rooms -->")[1]
    PAGE.write_text(f"{before}<!-- rooms -->\n{table()}<!-- end of rooms -->{after}")
    draw()


if __name__ == "__main__":
    main()
