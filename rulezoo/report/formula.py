"""Formulas of rules as MathML, and the meaning of the letters that rules share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from rulezoo.text import clean

#: LaTeX that a formula contains → the letter in words. What one rule alone uses is explained in its formula.
SYMBOLS = (
    (r"h_l|h_\{l-1\}", "h_l", "activity of layer l, at its site"),
    (r"s_l", "s_l", "drive of layer l, in front of its nonlinearity φ"),
    (r"W_l|W_\{l\+1\}|W_L\b|W_\{ij\}|\\Delta W\b", "W", "forward weights"),
    (r"B_l|B_k|B\^\\top|B_\{l-1\}|B \\leftarrow|B \\text", "B", "feedback weights"),
    (r"\\delta_l", r"\delta_l", "error signal at the drive of layer l"),
    (r"\\hat\{g\}", r"\hat{g}_l", "estimate of the gradient at layer l"),
    (r"(?<![_a-z{])e(?![_a-z^])|e_t\b|e_\{t\+k\}", "e", "error of the output: ∂L/∂y"),
    (r"\\Delta y", r"\Delta y", "change of the output that a perturbation causes"),
    (r"\\xi", r"\xi", "perturbation"),
    (r"\bv\b", "v", "variance of the perturbation"),
    (r"\bL\(|(?<![_{\\a-zA-Z])L(?![_a-zA-Z])", "L", "loss of an example"),
    (r"\bK\b", "K", "number of perturbations"),
    (r"(?<![a-z_\\])r\b(?!_)", "r", "rate of the running average"),
    (r"\\lambda", r"\lambda", "rate of decay"),
    (r"\\eta", r"\eta", "learning rate; the task's optimiser makes the step"),
    (r"\\odot", r"\odot", "product element by element"),
    (r"\\overline", r"\overline{x}", "mean over the batch"),
)


def mathml(latex: str, *, block: bool = False) -> Markup:
    """A formula as MathML; as code, where it is no LaTeX that can be converted."""
    from docutils.utils.math import MathError
    from docutils.utils.math.latex2mathml import tex2mathml

    latex = clean(latex)
    # ⊤ is an operator, which stands too high in an exponent.
    written = re.sub(r"\\top\b", r"\\mathsf{T}", latex)
    try:
        return Markup(re.sub(r"\n\s*", "", tex2mathml(written, as_block=block)))
    except (
        MathError,
        IndexError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
    ):  # whatever a plugin wrote
        return Markup("<code>{}</code>").format(latex)


def lines(formula: Sequence[str]) -> list[Markup]:
    r"""A formula as blocks of MathML; what stands apart (``\qquad``) gets a line of its own, so that it fits on a phone."""
    pieces = (piece.strip().removesuffix(",") for line in formula for piece in line.split(r"\qquad"))
    return [mathml(piece, block=True) for piece in pieces]


def letters(formula: Sequence[str]) -> list[tuple[Markup, str]]:
    r"""The shared letters that a formula uses, as MathML, with their meanings.

    A line such as ``K \\text{: the layer of the output}`` gives letters another meaning, or one of their own.
    """
    text = re.sub(r"\\text\{[^}]*\}", " ", "\n".join(formula))
    own = "\n".join(
        re.split(r"\\q?quad", head)[-1]
        for line in formula
        for head, colon, _ in [line.partition(r"\text{:")]
        if colon
    )
    return [
        (mathml(letter), meaning)
        for pattern, letter, meaning in SYMBOLS
        if re.search(pattern, text) and not re.search(pattern, own)
    ]
