"""The documentation as a web site: `sphinx-build -W --keep-going -c docs . build/docs`, then open build/docs/index.html.

The sources are the Markdown files of the repository as they are. The site needs no network: it opens from disk, formulas are
MathML, and nothing is requested from other hosts. `sphinx-build -b linkcheck -c docs . build/links` follows external links.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.writers.html5 import HTML5Translator

project = "rulezoo"
author = "the rulezoo contributors"
html_title = "rulezoo"
language = "en"

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_external_toc"]
external_toc_path = "docs/toc.yml"
include_patterns = ["docs/**.md", "benchmarks/*.md", "leaderboard/*/*.md", "[A-Z]*.md"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that code hosts give headings

html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_web/static"]
html_css_files = ["extra.css"]
html_extra_path = [
    "_web/index.html"
]  # leads to docs/index.html, since pages keep their path in the repository
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"
html_permalinks_icon = "#"
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
linkcheck_timeout = 20


class DarkFigures(SphinxTransform):
    """Show FIGURE-dark.svg in place of FIGURE.svg on dark pages, where there is one."""

    default_priority = 200  # before images are collected

    def apply(self, **kwargs: object) -> None:
        """Put the dark figure behind the light one; the theme shows one of them."""
        folder = Path(self.env.doc2path(self.env.docname)).parent
        for image in list(self.document.findall(nodes.image)):
            dark = image["uri"].removesuffix(".svg") + "-dark.svg"
            if (folder / dark).is_file():
                twin = image.copy()
                twin["uri"] = dark
                twin["classes"] = [*image["classes"], "only-dark"]
                image["classes"] = [*image["classes"], "only-light"]
                image.parent.insert(image.parent.index(image) + 1, twin)


def _mathml(translator: HTML5Translator, node: nodes.Element, *, block: bool) -> None:
    formula = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what this site adds to Sphinx."""
    app.add_transform(DarkFigures)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda translator, node: _mathml(translator, node, block=False), None),
        block_renderers=(lambda translator, node: _mathml(translator, node, block=True), None),
    )
