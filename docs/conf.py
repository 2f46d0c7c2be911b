"""The site: the stored notebooks, rendered. Nothing is executed, and no page asks another host for anything."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tools.settings import read  # noqa: E402

settings = read()

project = settings["title"]
author = settings["author"]
copyright = f"{author}. {settings['license']}"
version = release = settings["version"]
language = "en"

extensions = ["myst_nb", "sphinx_copybutton"]
extensions += [f"docs._ext.{path.stem}" for path in sorted((ROOT / "docs" / "_ext").glob("[a-z]*.py"))]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
suppress_warnings = ["myst.header"]  # an exercise's title is two levels below the chapter's

copybutton_selector = "div.cell_input pre, div.highlight-sh pre"  # what somebody would copy, so no outputs

html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = project
html_baseurl = settings.get("address", "").strip()  # where the site is published: canonical links, a sitemap
html_baseurl += "" if not html_baseurl or html_baseurl.endswith("/") else "/"
sharing = {key: settings.get(key, "").strip() for key in ("description", "repository")} | {"address": html_baseurl}
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css", "series.css"]
html_js_files = ["site.js", ("series.js", {"defer": "defer"})]
templates_path = ["_templates"]
html_show_sphinx = False
html_context = {"default_mode": "auto"}
html_sidebars = {"**": ["search-button-field.html", "sbt-sidebar-nav.html"]}
html_theme_options = {
    "navbar_persistent": [],  # or the theme shows a second search box
    "show_toc_level": 2,
    "max_navbar_depth": 1,  # the theme's switches to unfold more have no name that a screen reader could say
    "use_download_button": True,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "article_footer_items": ["page-links.html"],
    "footer_content_items": ["copyright.html"],
}
if settings["repository"]:
    html_theme_options |= {
        "repository_url": settings["repository"],
        "use_repository_button": True,
        "use_issues_button": True,
        "path_to_docs": "nbs",
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
