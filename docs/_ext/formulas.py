"""Formulas as MathML, made at build time: no script, and a screen reader can read them.

latex2mathml translates; what its output lacks beside TeX is small and is added here. The font is a subset of STIX.
"""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError

STYLE = "formulas.css"
# A name such as `log` stands a little apart from what it is applied to, unless that is in brackets.
NAME = re.compile(r"<m([io])>((?:[a-z]){2,})</m\1>(?=<m(?:i|n|sub|sup|frac|row|sqrt|over)\b)")
UNSPACED = re.compile(r"<mo>(/|\||&#x0002F;|&#x0007C;)</mo>")


def mathml(tex, block=False):
    "Translate a formula. Raise `ExtensionError` for a command that is not known."
    found = convert(tex, display="block" if block else "inline")
    if unknown := re.search(r"\\\w+", found):
        raise ExtensionError(f"formula {tex!r}: {unknown[0]} is not known to latex2mathml")
    found = found.replace("<mo>&#x02202;</mo>", "<mi>&#x02202;</mi>")  # ∂ is no operator: no space around it
    found = UNSPACED.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', found)
    found = re.sub(r"<mo>(max|min|relu)</mo>", r"<mi>\1</mi>", found)
    return NAME.sub(r'<m\1>\2</m\1><mspace width="0.17em" />', found)


def visit_inline(self, node):
    "Write a formula within a line."
    self.body.append(f'<span class="math">{mathml(node.astext())}</span>')
    raise nodes.SkipNode


def visit_block(self, node):
    "Write a formula of its own; a wide one can be scrolled by keyboard."
    self.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.add_css_file(STYLE)
    return {"parallel_read_safe": True}
