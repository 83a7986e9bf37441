# SPDX-License-Identifier: Apache-2.0
"""Draws ``docs/images/imports.svg``, the package's folders and who imports whom: python docs/tools/draw_imports.py

An arrow that follows from others is left out: what tools import by way of nodes needs no arrow of its own. The rooms of
a folder stand in the order in which they may be read, each one after all that it imports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "clip_seg_ros"
DRAWING = Path(__file__).parents[1] / "images" / "imports.svg"
Graph = dict[str, set[str]]

GROUND = "types, config, resources"
"""Box of the modules that lie beside the folders; the public face, which imports nearly everything, has its own."""
WIDTH, LAYER, MARGIN, GAP = 1080, 104, 16, 24
BOX_HEIGHT, LETTER = 62, 6.6
"""Pixels; ``LETTER`` is the width of one letter of the small text."""
PASSES = 4
"""Over all layers, after which the boxes change places no more."""
TIP = """<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="#666"/></marker></defs>"""


def module_graph(package: Path = PACKAGE) -> Graph:
    """Returns which modules of the package each module imports anywhere in it, for types alone included.

    Modules have dotted names without the package's, such as "nodes.life.health"; a folder's ``__init__`` has the
    folder's.
    """
    files = {_name(path, package): path for path in sorted(package.rglob("*.py"))}
    graph: Graph = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                named = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
            ours = (each.removeprefix(f"{package.name}.") for each in named if each.startswith(f"{package.name}."))
            graph[name].update(each for each in ours if each in files and not files[each].name.startswith("__init__"))
        graph[name].discard(name)
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Returns the groups of names that reach each other, which a graph without circles has none of."""
    reached = {name: _reached(name, graph) for name in graph}
    groups = {tuple(sorted(other for other in reached[name] if name in reached.get(other, ()))) for name in graph}
    return sorted(list(group) for group in groups if group)


def folder_graph(modules: Graph) -> Graph:
    """Returns which folders of the package import which others; loose modules count as ``GROUND``, but for "api"."""
    folders = {name.split(".")[0] for name in modules if "." in name}

    def folder(name: str) -> str:
        first = name.split(".")[0]
        return first if first in folders or first == "api" else GROUND

    return _between(modules, folder)


def room_graph(modules: Graph, folder: str) -> Graph:
    """Returns which rooms of a folder import which others of its rooms; the folder's own modules are left out."""

    def room(name: str) -> str:
        parts = name.split(".")
        return parts[1] if parts[0] == folder and len(parts) > 2 else ""

    graph = _between(modules, room)
    return {name: others - {""} for name, others in graph.items() if name}


def in_order(graph: Graph) -> list[str]:
    """Returns the names of a graph without circles, each after all that it imports."""
    return sorted(graph, key=lambda name: (_depth(name, graph), name))


def draw(modules: Graph) -> str:
    """Returns the picture as SVG."""
    graph = {name: others for name, others in folder_graph(modules).items() if name}
    layers: dict[int, list[str]] = {}
    for name in in_order(graph):
        layers.setdefault(_depth(name, graph), []).append(name)
    rooms = {name: in_order(room_graph(modules, name)) for name in graph}
    height = 2 * MARGIN + LAYER * len(layers) - (LAYER - BOX_HEIGHT)
    boxes = _placed(graph, layers, rooms, height)
    frame = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" text-anchor="middle"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>', TIP]
    lines.append(f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>')
    lines += [_arrow(boxes[name], boxes[other]) for name in in_order(graph) for other in sorted(_direct(name, graph))]
    lines += [_box(name, rooms[name], *boxes[name]) for name in in_order(graph)]
    return "\n".join([*lines, "</svg>", ""])


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _between(modules: Graph, group: Callable[[str], str]) -> Graph:
    graph: Graph = {group(name): set() for name in modules if name}
    for name, others in modules.items():
        if name:
            graph[group(name)].update(group(other) for other in others if group(other) != group(name))
    return graph


def _reached(name: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    to_see = list(graph[name])
    while to_see:
        other = to_see.pop()
        if other not in reached:
            reached.add(other)
            to_see += graph.get(other, ())
    return reached


def _depth(name: str, graph: Graph) -> int:
    return 1 + max((_depth(other, graph) for other in graph[name]), default=-1)


def _direct(name: str, graph: Graph) -> set[str]:
    """What a name imports and none of the others that it imports does."""
    by_way = set().union(*(_reached(other, graph) for other in graph[name])) if graph[name] else set()
    return graph[name] - by_way


def _placed(
    graph: Graph, layers: dict[int, list[str]], rooms: Mapping[str, list[str]], height: int
) -> dict[str, tuple[float, float, float]]:
    """Returns the left, the top and the width of each box; what is joined by arrows stands close, as far as it may."""
    middles = dict.fromkeys(graph, WIDTH / 2)
    boxes = {}
    joined = {
        name: [*_direct(name, graph), *(other for other in graph if name in _direct(other, graph))] for name in graph
    }
    for _ in range(PASSES):
        for depth, names in layers.items():
            names.sort(key=lambda name: (sum(middles[other] for other in joined[name]) / len(joined[name]), name))
            widths = [_width(name, rooms[name]) for name in names]
            left = (WIDTH - sum(widths) - GAP * (len(names) - 1)) / 2
            for name, width in zip(names, widths):
                boxes[name] = (left, height - MARGIN - BOX_HEIGHT - LAYER * depth, width)
                middles[name] = left + width / 2
                left += width + GAP
    return boxes


def _width(name: str, rooms: list[str]) -> float:
    return max(110.0, 24 + LETTER * max(1.4 * len(name), len(" · ".join(rooms))))


def _box(name: str, rooms: list[str], left: float, top: float, width: float) -> str:
    middle, first = left + width / 2, top + (27 if rooms else 37)
    texts = [f'<text x="{middle:g}" y="{first:g}" font-weight="600" font-size="16">{escape(name)}</text>']
    if rooms:
        text = escape(" · ".join(rooms))
        texts.append(f'<text x="{middle:g}" y="{first + 21:g}" font-size="13" fill="#444">{text}</text>')
    frame = (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="8" fill="#eef6fb" stroke="#888"/>'
    )
    return "\n".join([frame, *texts])


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    (left, top, width), (to_left, to_top, to_width) = start, end
    # Towards the other box, but not closer to the corner than the round edge.
    reach = width / 2 - 14
    middle, to_middle = left + width / 2, to_left + to_width / 2
    x = middle + max(-reach, min(reach, (to_middle - middle) / 3))
    to_reach = to_width / 2 - 14
    to_x = to_middle + max(-to_reach, min(to_reach, (middle - to_middle) / 3))
    return (
        f'<line x1="{x:g}" y1="{top + BOX_HEIGHT:g}" x2="{to_x:g}" y2="{to_top - 2:g}" stroke="#666" '
        'marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    DRAWING.write_text(draw(module_graph()), encoding="utf-8")
