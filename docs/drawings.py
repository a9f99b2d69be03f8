"""The drawings of the documents as SVG, each in a light and a dark form: sites, cut and pull; noise; the crossover.

`python docs/generate.py` writes them. They are 480 wide, so that their text can be read on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from rulezoo.measures import theory

LIGHT = {"paper": "#ffffff", "ink": "#1f2430", "faint": "#5c6270", "box": "#e8edf9", "edge": "#46598c",
         "error": "#b3261e", "noise": "#00695c", "site": "#b26a00"}  # fmt: skip
DARK = {"paper": "#131416", "ink": "#e3e5ea", "faint": "#a3a9b6", "box": "#232b40", "edge": "#8fa3d8",
        "error": "#ff8a80", "noise": "#4db6a5", "site": "#ffb74d"}  # fmt: skip
WIDTH = 480
UNITS, RANK, SHARE = 1024, 32, 0.475  # conv1.post of digits-cnn after training: the claim `alignment`
BUDGETS = (1, 10_000)  # perturbations on the axis of the crossover

Colours = Mapping[str, str]


def drawings() -> dict[str, str]:
    """Name of a file → its content."""
    made: dict[str, Callable[[Colours], str]] = {
        "sites": sites, "noise": noise, "crossover": crossover
    }  # fmt: skip
    return {
        f"{name}{form}.svg": draw(colours)
        for name, draw in made.items()
        for form, colours in (("", LIGHT), ("-dark", DARK))
    }


def sites(c: Colours) -> str:
    """Three rows: the forward pass, the cut, the pull."""
    rows = [
        _text(16, 28, "1. Forward pass", c["ink"], bold=True),
        _text(16, 46, "The network computes as usual; sites are named points in it.", c["faint"]),
        *_chain(c, 92, cut=False),
        _text(16, 168, "2. Cut", c["ink"], bold=True),
        _text(16, 186, "Behind every site the graph is cut: no gradient crosses.", c["faint"]),
        *_chain(c, 238, cut=True),
        _text(16, 314, "3. Pull", c["ink"], bold=True),
        _text(16, 332, "The rule gives each site a signal v, which is pulled back onto the", c["faint"]),
        _text(16, 348, "weights of its block. The read-out gets its true gradient.", c["faint"]),
        *_chain(c, 430, cut=True),
        *_signals(c, 430),
    ]
    return _svg(c, 488, "Sites, cut and pull", rows)


_BOXES = ((58, 72, "W₁, φ"), (196, 72, "W₂, φ"), (334, 60, "W₃"))  # left edge, width, label
_SITES = ((160, "h₁"), (298, "h₂"))
_OUTPUT = 432


def _chain(c: Colours, y: int, *, cut: bool) -> Iterable[str]:
    """Two hidden blocks with a site behind each, and the read-out."""
    stops = [(30, 58), (130, 150), (170, 196), (268, 288), (308, 334), (394, _OUTPUT - 12)]
    yield from (_arrow(c["ink"], a, y, b, y) for a, b in stops)
    yield _text(20, y + 5, "x", c["ink"], middle=True)
    for left, width, label in _BOXES:
        yield (
            f'<rect x="{left}" y="{y - 20}" width="{width}" height="40" rx="5" fill="{c["box"]}" '
            f'stroke="{c["edge"]}" stroke-width="1.5"/>'
        )
        yield _text(left + width // 2, y + 5, label, c["ink"], middle=True)
    for x, label in _SITES:
        yield f'<circle cx="{x}" cy="{y}" r="9" fill="{c["paper"]}" stroke="{c["site"]}" stroke-width="2.5"/>'
        yield _text(x, y - 18, label, c["site"], middle=True)
        if cut:
            yield _line(c["error"], x + 17, y - 30, x + 17, y + 26, dash="4 3", width=2)
    yield _text(_OUTPUT, y + 5, "y", c["ink"], middle=True)
    if not cut:
        yield _text(160, y + 40, "site", c["site"], middle=True)
        yield _text(298, y + 40, "site", c["site"], middle=True)
        yield _text(364, y + 40, "read-out", c["faint"], middle=True)


def _signals(c: Colours, y: int) -> Iterable[str]:
    """Signals that arrive at the sites, and their way back onto the weights of the block."""
    for (x, _), (left, width, _), label in zip(_SITES, _BOXES, ("v₁", "v₂"), strict=False):
        yield _arrow(c["error"], x, y - 56, x, y - 34)
        yield _text(x, y - 60, label, c["error"], middle=True)
        yield _curve(c["error"], x - 4, y + 11, left + width // 2, y + 24)
    yield _text(_OUTPUT, y - 60, "e = ∂L/∂y", c["error"], middle=True)
    yield _arrow(c["error"], _OUTPUT, y - 54, _OUTPUT, y - 14)
    yield _curve(c["error"], _OUTPUT - 4, y + 11, 364, y + 24)


def noise(c: Colours) -> str:
    """A cloud of activity in two dimensions, perturbed in all directions and within its manifold."""
    parts: list[str] = []
    for left, title, isotropic in (
        (0, "Noise in all units (VNC)", True),
        (240, "Noise in the manifold (NMNC)", False),
    ):
        x, y, tilt = left + 120, 108, -28
        parts.append(_text(x, 28, title, c["ink"], bold=True, middle=True))
        parts.append(f'<g transform="rotate({tilt} {x} {y})">')
        parts.append(
            f'<ellipse cx="{x}" cy="{y}" rx="96" ry="17" fill="{c["box"]}" stroke="{c["edge"]}" stroke-width="1.5"/>'
        )
        parts += [
            f'<circle cx="{x + 84 * math.sin(2.4 * i):.1f}" cy="{y + 9 * math.sin(5.1 * i + 1):.1f}" r="2" fill="{c["edge"]}"/>'
            for i in range(24)
        ]
        turns = range(0, 360, 45) if isotropic else (0, 180)
        size = 40 if isotropic else 40 * math.sqrt(2)
        parts += [
            _arrow(
                c["noise"],
                x,
                y,
                x + size * math.cos(math.radians(a)),
                y + size * math.sin(math.radians(a)),
                width=2,
            )
            for a in turns
        ]
        parts.append("</g>")
    parts.append(_text(120, 190, "n directions to estimate", c["noise"], middle=True))
    parts.append(_text(360, 190, "d directions, same energy", c["noise"], middle=True))
    return _svg(c, 208, "Perturbations in all units and within the manifold", parts)


def crossover(c: Colours) -> str:
    """The expected angle to the gradient against the number of perturbations, by `rulezoo.measures.theory`."""
    left, right, top, bottom = 56, 464, 44, 268

    def at(k: float, angle: float) -> tuple[float, float]:
        span = math.log(BUDGETS[1] / BUDGETS[0])
        return left + (right - left) * math.log(k / BUDGETS[0]) / span, bottom - (bottom - top) * angle / 90

    def curve(d: int, share: float, colour: str, dash: str = "") -> str:
        ks = [BUDGETS[0] * (BUDGETS[1] / BUDGETS[0]) ** (i / 60) for i in range(61)]
        points = " ".join("{:.1f},{:.1f}".format(*at(k, _angle(d, k, share))) for k in ks)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dashed}/>'

    best = theory.crossover_budget(SHARE, RANK, UNITS)
    meet = at(best, _angle(UNITS, best, 1))
    floor = math.degrees(math.acos(math.sqrt(SHARE)))
    parts = [_text(16, 24, "Expected angle to the gradient, degrees", c["ink"], bold=True)]
    for angle in (0, 30, 60, 90):
        y = at(1, angle)[1]
        parts += [
            _line(c["faint"], left, y, right, y, width=0.5),
            _text(left - 20, y + 5, str(angle), c["ink"], middle=True),
        ]
    for k in (1, 10, 100, 1_000, 10_000):
        parts.append(
            _text(at(k, 0)[0] - (12 if k == BUDGETS[1] else 0), bottom + 20, f"{k:,}", c["ink"], middle=True)
        )
    parts += [
        _text((left + right) / 2, bottom + 42, "perturbations K", c["ink"], middle=True),
        _line(c["faint"], *at(1, floor), *at(BUDGETS[1], floor), dash="2 4", width=1.5),
        curve(UNITS, 1, c["error"], "7 4"),
        curve(RANK, SHARE, c["noise"]),
        f'<circle cx="{meet[0]:.1f}" cy="{meet[1]:.1f}" r="5" fill="{c["paper"]}" stroke="{c["ink"]}" stroke-width="2"/>',
        _text(meet[0] + 6, meet[1] - 12, f"K* = {best:.0f}", c["ink"]),
        _text(at(40, 83)[0], at(40, 83)[1] + 4, "VNC, all 1,024 units", c["error"]),
        _text(at(1.2, 55)[0], at(1, 55)[1] + 4, "NMNC, d = 32", c["noise"]),
        _text(at(1.2, floor)[0], at(1, floor)[1] + 17, "cannot be passed: arccos √α", c["faint"]),
    ]
    return _svg(c, 320, "Angle against the number of perturbations", parts)


def _angle(d: float, k: float, share: float) -> float:
    return math.degrees(math.acos(theory.cosine(float(d), float(k), float(share))))


def _svg(c: Colours, height: int, title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'font-family="system-ui, sans-serif" font-size="14" role="img">\n<title>{title}</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="{c["paper"]}"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, words: str, colour: str, *, bold: bool = False, middle: bool = False) -> str:
    extra = (' font-weight="600"' if bold else "") + (' text-anchor="middle"' if middle else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{extra}>{words}</text>'


def _line(
    colour: str, x: float, y: float, to_x: float, to_y: float, *, width: float = 1.5, dash: str = ""
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashed}/>'
    )


def _arrow(colour: str, x: float, y: float, to_x: float, to_y: float, *, width: float = 1.5) -> str:
    return _line(colour, x, y, to_x, to_y, width=width) + _head(
        colour, to_x, to_y, math.atan2(to_y - y, to_x - x)
    )


def _curve(colour: str, x: float, y: float, to_x: float, to_y: float) -> str:
    """An arc from the site down and back, up into the block."""
    low = y + 38
    path = f"M{x:.1f},{y:.1f} C{x:.1f},{low} {to_x:.1f},{low} {to_x:.1f},{to_y:.1f}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>' + _head(
        colour, to_x, to_y, -math.pi / 2
    )


def _head(colour: str, x: float, y: float, turn: float) -> str:
    corners = [(x - 8 * math.cos(turn + s), y - 8 * math.sin(turn + s)) for s in (0.4, -0.4)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in ((x, y), *corners))
    return f'<polygon points="{points}" fill="{colour}"/>'
