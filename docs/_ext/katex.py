"""Formulas by KaTeX, from the copy in `_static/katex/` (npm package `katex`, its licence beside it).

The page holds the TeX source, readable without JavaScript; `site.js` renders it.
"""

from docutils import nodes


def visit_inline(self, node):
    "Write a formula within a line."
    self.body.append(f'<span class="math">{self.encode(node.astext())}</span>')
    raise nodes.SkipNode


def visit_block(self, node):
    "Write a formula of its own."
    self.body.append(f'<div class="math" tabindex="0">{self.encode(node.astext())}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_block, None))
    app.add_css_file("katex/katex.min.css")
    app.add_js_file("katex/katex.min.js", loading_method="defer")
    return {"parallel_read_safe": True}
