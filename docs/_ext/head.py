"""What a page loads, and what its head says: nothing that it does not use.

- The theme's `fontawesome.js` (1.5 MB) draws icons that its font draws as well: the script goes, the icons stay.
- The index of the search is loaded by the search page alone.
- One viewport; a title that names the page first, and the site once.
- In code, spans of names, punctuation and spaces, which have the colour of the text around them, are no elements.
"""

import re
from pathlib import Path

PLAIN = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')
UNUSED = ["scripts/fontawesome.js", "scripts/fontawesome.js.LICENSE.txt"]


def without_icons_script(html):
    "Drop the script that draws icons."
    return re.sub(r"<script[^>]*fontawesome\.js[^>]*></script>", "", html)


def page_title(app, pagename, context):
    "Name a page: the home page by what the project is, every other by its own title and the project's."
    if pagename == app.config.root_doc:
        return f"{app.config.project}: {app.config.sharing['description']}"
    title = re.sub(r"<[^>]+>", "", context.get("title") or ("Search" if pagename == "search" else ""))
    return f"{title} — {app.config.project}".removeprefix(" — ")


def prepare(app, pagename, templatename, context, doctree):
    "Put into the context what `_templates/layout.html` asks for; lighten the body."
    context["without_icons_script"] = without_icons_script
    context["page_title"] = page_title(app, pagename, context).replace("&amp;", "&")
    context["metatags"] = re.sub(r'<meta[^>]*name="viewport"[^>]*>\n?', "", context.get("metatags", ""))
    if "body" in context:
        context["body"] = PLAIN.sub(r"\1", context["body"])
    for group in context.get("header_buttons", []):  # the source of other pages is a directive of a few lines
        if group.get("label") == "download-buttons" and not pagename.startswith("chapters/"):
            group["buttons"] = [each for each in group["buttons"] if "_sources" not in each.get("url", "")]


def drop_unused(app, error):
    "Remove what no page loads from the built site."
    static = Path(app.outdir) / "_static"
    for path in [static / name for name in UNUSED] + list(static.rglob("*.map")):
        path.unlink(missing_ok=True)


def setup(app):
    app.connect("html-page-context", prepare, priority=901)  # after the theme's own
    app.connect("build-finished", drop_unused)
    return {"parallel_read_safe": True}
