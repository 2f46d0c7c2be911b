"""A page that can be found, shown to others and mended. What needs an address is there only when settings.ini names it.

- Always: a description, made of the page's first sentences, and the words of a card (OpenGraph).
- With `address`, where the site is published: canonical links, a picture on the card, sitemap.xml, robots.txt.
- With `repository`: at the end of a page, links that edit its source, and that report what is wrong with it.
"""

import html
import re
from pathlib import Path
from urllib.parse import quote

from docutils import nodes

SHORT, LONG = 50, 160
HIDDEN = {"404", "search", "genindex"}  # pages that no search engine need know


def description(doctree, fallback):
    "Return the first sentences of a page, 50 to 160 characters."
    words = ""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if not isinstance(paragraph.parent, (nodes.section, nodes.block_quote)):
            continue
        words = f"{words} {paragraph.astext()}".strip()
        if len(words) >= SHORT:
            break
    words = " ".join(words.split())
    words = words if len(words) >= SHORT else f"{words} {fallback}.".strip()
    return words if len(words) <= LONG else words[: LONG - 2].rsplit(" ", 1)[0].rstrip(",;:.") + " …"


def source(pagename):
    "Return the file that a page is made of, None if it has none."
    chapter = re.match(r"(?:chapters|loops)/(\w+)$", pagename)
    if chapter:
        return f"nbs/{chapter[1]}.ipynb"
    return None if "/" in pagename or pagename in HIDDEN - {"404"} else f"docs/{pagename}.md"


def links(pagename, title, repository):
    "List (words, address) of what a reader can do about a page; nothing without a repository."
    path = source(pagename)
    if not repository or not path:
        return []
    body = quote(f"Page: {pagename}\nSection: \n\nWhat is wrong: ")
    found = [
        ("Edit this page", f"{repository}/edit/main/{path}"),
        ("Something wrong here?", f"{repository}/issues/new?title={quote(title)}&body={body}"),
    ]
    notebook = re.match(r"https://github\.com/(.+)", repository) if path.endswith(".ipynb") else None
    if notebook:
        found.append(("Run it in Colab", f"https://colab.research.google.com/github/{notebook[1]}/blob/main/{path}"))
    return found


def tags(app, pagename, templatename, context, doctree):
    "Put description, card and links of a page into its context."
    sharing = app.config.sharing
    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title") or app.config.project))
    said = {"description": description(doctree, sharing["description"])}
    said |= {"og:title": title, "og:description": said["description"], "og:type": "article"}
    said |= {"og:site_name": app.config.project}
    if sharing["address"]:
        said |= {"og:url": f"{sharing['address']}{pagename}.html", "og:image": f"{sharing['address']}_static/card.png"}
        said |= {"twitter:card": "summary_large_image"}
    rows = [
        f'<meta {"property" if ":" in key and not key.startswith("twitter") else "name"}="{key}" '
        f'content="{html.escape(value)}" />'
        for key, value in said.items()
    ]
    if pagename in HIDDEN:
        rows.append('<meta name="robots" content="noindex" />')
    if pagename == "404" and sharing["address"]:  # it is shown at any address, at any depth
        rows.insert(0, f'<base href="{sharing["address"]}" />')
    context["share_tags"] = "\n    ".join(rows)
    context["page_links"] = links(pagename, title, sharing["repository"])


def sitemap(app, error):
    "Write sitemap.xml, robots.txt and the picture of the card, if the site has an address."
    address, out = app.config.sharing["address"], Path(app.outdir)
    if error or not address or app.builder.format != "html":
        return
    pages = sorted(app.env.found_docs - HIDDEN)
    rows = "".join(f"  <url><loc>{html.escape(address + page)}.html</loc></url>\n" for page in pages)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    (out / "sitemap.xml").write_text(f"{head}{rows}</urlset>\n", encoding="utf-8")
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {address}sitemap.xml\n", encoding="utf-8")
    card(app.config.project, app.config.sharing["description"], Path(app.srcdir) / "_static" / "loops.png").savefig(
        out / "_static" / "card.png", dpi=100
    )


def card(title, words, picture):
    "Draw the card, 1200 by 630: the title, what it is, and the picture of the home page."
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    figure = Figure((12, 6.3), facecolor="#14161a")
    figure.text(0.06, 0.83, title, color="white", fontsize=46, weight="bold")
    figure.text(0.06, 0.73, words, color="#c8ccd4", fontsize=17)
    ax = figure.add_axes((0.05, 0.05, 0.9, 0.6))
    ax.imshow(imread(picture))
    ax.axis("off")
    return figure


def setup(app):
    app.add_config_value("sharing", {}, "html")  # description, address, repository: from settings.ini
    app.connect("html-page-context", tags, priority=400)  # before the theme, which drops what would be empty
    app.connect("build-finished", sitemap)
    return {"parallel_read_safe": True}
