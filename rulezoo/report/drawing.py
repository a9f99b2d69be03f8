"""A drawing of a rule, made of what it declares: the forward path, the path of the error, and noise.

It shows a network of two hidden layers and a read-out, whatever network a rule is used on. Nothing of it is drawn by hand for one
rule: rules with the same marks have the same drawing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from rulezoo.specs import Plausibility

_WIDTH, _HEIGHT = 430, 236
_Y = 150  # of the forward path
_BOXES = ((44, 62), (170, 62), (296, 56))  # left edge and width: two hidden layers and the read-out
_SITES = (130, 256)
_OUTPUT, _INPUT = 376, 20
_UP = 52  # of the path of the error


@dataclass(frozen=True)
class Path:
    """How the error reaches hidden layers: what is drawn, and the same in words."""

    kind: str
    words: str


def path(marks: Plausibility) -> Path:
    """The path of the error that a rule declares."""
    reads = (
        "the forward weights or their signs" if marks.weight_transport else "feedback weights of their own"
    )
    if not marks.hidden_learning:
        return Path("fixed", "Hidden layers do not learn. The read-out learns from the error of the output.")
    if marks.signal == "none":
        return Path("local", "No error reaches hidden layers: each learns from its own input and activity.")
    if marks.signal == "scalar":
        source = "the loss" if marks.update_locking else "a loss of its own"
        return Path(
            "scalar" if marks.update_locking else "local",
            f"One number reaches all neurons of a layer: how {source} changes.",
        )
    if marks.signal == "vector":
        source = (
            "The error of the output"
            if marks.update_locking
            else "The label, and not the error of the output,"
        )
        return Path("direct", f"{source} reaches every hidden layer directly, through {reads}.")
    if marks.backward_pass:
        return Path("chain", f"Errors travel back through the layers, one after the other, through {reads}.")
    if marks.update_locking:
        return Path(
            "settle",
            f"All layers settle together: each exchanges activity with its neighbours, through {reads}.",
        )
    return Path("local", "Each layer has a loss of its own, whose error does not leave the layer.")


def describe(marks: Plausibility) -> str:
    """The drawing in words."""
    words = [path(marks).words]
    if marks.perturbation:
        words.append("Activity or weights are perturbed (ξ).")
    if marks.phases:
        number, _, each = str(marks.phases).partition(" ")
        words.append(
            f"An update takes {number} extra {'pass' if number == '1' else 'passes'}{each and ' '}{each}."
        )
    if marks.past_storage:
        words.append("On a recurrent network an update needs stored activity of earlier time steps.")
    return " ".join(words)


def draw(name: str, marks: Plausibility) -> Markup:
    """The drawing as inline SVG, in the colours of the page."""
    found = path(marks)
    parts = [
        *_forward(marks),
        *_PATHS[found.kind](marks),
        *(_noise() if marks.perturbation else ()),
    ]
    label = escape(f"{name}: {describe(marks)}")
    head = f'<svg class="drawing" role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _forward(marks: Plausibility) -> Iterator[str]:
    stops = [(_INPUT + 12, 44), (106, 121), (139, 170), (232, 247), (265, 296), (352, _OUTPUT - 10)]
    yield from (_arrow("ink", a, _Y, b, _Y) for a, b in stops)
    yield _text(_INPUT, _Y + 5, "x")
    for i, (left, width) in enumerate(_BOXES):
        is_fixed = not marks.hidden_learning and i < 2
        dash = ' stroke-dasharray="4 3"' if is_fixed else ""
        yield f'<rect x="{left}" y="{_Y - 20}" width="{width}" height="40" rx="6" class="box"{dash}/>'
        yield _text(left + width / 2, _Y + 5, ("W₁, φ", "W₂, φ", "W₃")[i])
        if is_fixed:
            yield _text(left + width / 2, _Y + 38, "fixed", "soft")
    for i, x in enumerate(_SITES):
        yield f'<circle cx="{x}" cy="{_Y}" r="9" class="site"/>'
        yield _text(x, _Y + 5, ("h₁", "h₂")[i], "small")
    yield _text(_OUTPUT, _Y + 5, "y")
    yield _text(_OUTPUT + 30, _Y - 40, "e", "error")
    yield _arrow("error", _OUTPUT + 24, _Y - 38, _OUTPUT + 6, _Y - 10)
    yield _curve("error", _OUTPUT - 2, _Y + 11, 324, _Y + 22)


def _weights(marks: Plausibility, forward: str, own: str) -> str:
    return forward if marks.weight_transport else own


def _chain(marks: Plausibility) -> Iterator[str]:
    """Back through every layer: one box for the way behind each hidden layer."""
    yield _line("error", _OUTPUT + 30, _Y - 56, _OUTPUT + 30, _UP)
    yield _arrow("error", _OUTPUT + 30, _UP, 352, _UP)
    for i, (left, width) in reversed(list(enumerate(_BOXES[1:], start=1))):
        yield _feedback(left, width, _weights(marks, ("", "of W₂", "of W₃")[i], ("", "B₁", "B₂")[i]))
        yield _arrow("error", left, _UP, _SITES[i - 1] + 12, _UP)
        yield _text(_SITES[i - 1], _UP + 5, ("δ₁", "δ₂")[i - 1], "error")
        yield _arrow("error", _SITES[i - 1], _UP + 14, _SITES[i - 1], _Y - 14)
        if i > 1:
            yield _arrow("error", _SITES[i - 1] - 12, _UP, 232, _UP)


def _direct(marks: Plausibility) -> Iterator[str]:
    """From the output, or the label, straight to every site."""
    source = _OUTPUT + 30
    if marks.update_locking:
        yield _line("error", source, _Y - 56, source, 26)
    else:
        yield _text(source, 31, "y*", "error")
        source -= 14
    yield _line("error", source, 26, _SITES[0], 26)
    for i, x in enumerate(_SITES):
        yield _arrow("error", x, 26, x, _UP - 14)
        yield _feedback(x - 24, 48, _weights(marks, "of W₃", ("B₁", "B₂")[i]))
        yield _arrow("error", x, _UP + 14, x, _Y - 14)


def _scalar(marks: Plausibility) -> Iterator[str]:
    """One number for all."""
    source = _OUTPUT + 30
    yield _text(source, 58, "L", "error")
    yield _line("error", source, _Y - 56, source, 64)
    yield _line("error", source - 12, 52, _SITES[0], 52, dashed=True)
    for x in _SITES:
        yield _arrow("error", x, 52, x, _Y - 14, dashed=True)
    yield _text((_SITES[0] + _SITES[1]) / 2, 42, "one number for all neurons", "soft")


def _settle(marks: Plausibility) -> Iterator[str]:
    """Neighbours exchange activity until they have settled."""
    ends = (_SITES[0], _SITES[1], _OUTPUT)
    for i in (1, 0):
        x0, x1 = ends[i + 1], ends[i]
        yield _bow("error", x0, x1, _Y - 14, 62)
        yield _text((x0 + x1) / 2, _Y - 68, _weights(marks, ("of W₂", "of W₃")[i], ("B₁", "B₂")[i]), "error")
    yield _text((_SITES[0] + _OUTPUT) / 2, 36, "all layers settle together", "soft")


def _local(marks: Plausibility) -> Iterator[str]:
    """Each layer by itself."""
    for (left, width), x in zip(_BOXES, _SITES, strict=False):
        yield _bow("error", x, left + width / 2, _Y - 24, 50)
        yield _text((x + left + width / 2) / 2, _Y - 64, "local", "soft")


def _fixed(marks: Plausibility) -> Iterator[str]:
    yield _text((_SITES[0] + _SITES[1]) / 2, _UP + 30, "no feedback", "soft")


_PATHS = {
    "chain": _chain,
    "direct": _direct,
    "scalar": _scalar,
    "settle": _settle,
    "local": _local,
    "fixed": _fixed,
}


def _noise() -> Iterator[str]:
    for x in _SITES:
        yield _arrow("noise", x - 18, _Y + 52, x - 5, _Y + 13)
        yield _text(x - 22, _Y + 66, "ξ", "noise")


def _feedback(left: float, width: float, label: str) -> str:
    box = f'<rect x="{left:g}" y="{_UP - 14}" width="{width:g}" height="28" rx="6" class="feedback"/>'
    return box + _text(left + width / 2, _UP + 5, label, "error")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle"{of}>{escape(text)}</text>'


def _line(kind: str, x0: float, y0: float, x1: float, y1: float, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    return f'<path class="line {kind}" d="M{x0:g} {y0:g}L{x1:g} {y1:g}"{dash}/>'


def _arrow(kind: str, x0: float, y0: float, x1: float, y1: float, *, dashed: bool = False) -> str:
    return _line(kind, x0, y0, x1, y1, dashed=dashed) + _head(kind, x0, y0, x1, y1)


def _head(kind: str, x0: float, y0: float, x1: float, y1: float) -> str:
    """The head of an arrow from the first point to the second."""
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    u, v = (x1 - x0) / length, (y1 - y0) / length
    left, right = ((x1 - 7 * u + s * 3.6 * v, y1 - 7 * v - s * 3.6 * u) for s in (1, -1))
    return f'<path class="head {kind}" d="M{x1:g} {y1:g}L{left[0]:.1f} {left[1]:.1f}L{right[0]:.1f} {right[1]:.1f}Z"/>'


def _curve(kind: str, x0: float, y0: float, x1: float, y1: float) -> str:
    """An arrow that bends below the forward path."""
    low = y0 + 34
    line = f'<path class="line {kind}" d="M{x0:g} {y0:g}C{x0:g} {low:g} {x1:g} {low:g} {x1:g} {y1:g}"/>'
    return line + _head(kind, x1, low, x1, y1)


def _bow(kind: str, x0: float, x1: float, y: float, height: float) -> str:
    """An arrow that bends above the forward path."""
    top = y - height
    line = f'<path class="line {kind}" d="M{x0:g} {y:g}C{x0:g} {top:g} {x1:g} {top:g} {x1:g} {y:g}"/>'
    return line + _head(kind, x1, top, x1, y)
