"""The directive `{chapter-cards}`: a card for each chapter, with what its first cell says of itself, and a picture.

The picture is the first of the chapter's own figures that is no chart of a training run, made smaller.
"""

import base64
import html
import io
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.util.docutils import SphinxDirective

from tools.chapters import chapters

WIDTH = 480  # pixels: twice what is shown


@cache
def thumbnails():
    "Return {number of a chapter: (its figure as PNG, alternative text)}, read once."
    found = {}
    for each in chapters():
        outputs = [output for _, output in each.outputs if "image/png" in output.get("data", {})]
        told = [(output.data["image/png"], output.metadata["image/png"]["alt"]) for output in outputs]
        ideas = [figure for figure in told if not figure[1].startswith("Line chart")] or told
        if ideas:
            found[each.number] = (base64.b64decode(ideas[0][0]), ideas[0][1])
    return found


def smaller(png):
    "Return a picture of at most `WIDTH` pixels, in few colours."
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    return image.quantize(40, method=Image.Quantize.FASTOCTREE)


def will(chapter):
    "List what a reader of a chapter will be able to do, as its first cell says."
    text = chapter.cells[0].source.partition("**You will**")[2].strip("\n ").partition("\n\n")[0]
    return [item.strip() for item in re.split(r"^- ", text, flags=re.MULTILINE) if item.strip()]


class ChapterCards(SphinxDirective):
    "List the chapters: 01, 02, … and 00, the workbench, last."

    def run(self):
        self.env.note_reread()
        cards = nodes.bullet_list(classes=["cards", "chapter-cards"])
        for chapter in chapters():
            self.env.note_dependency(str(chapter.path))
            cards += self.card(chapter)
        return [cards]

    def card(self, chapter):
        "Make the card of one chapter."
        link = nodes.reference("", "", *self.parse_inline(chapter.title)[0], refuri=f"chapters/{chapter.stem}.html")
        link["internal"] = True
        card = nodes.list_item("")
        if chapter.number in thumbnails():
            alt = html.escape(thumbnails()[chapter.number][1])
            size = f'width="{WIDTH // 2}" height="128"'
            image = f'<img src="_static/cards/{chapter.number}.png" alt="{alt}" {size} loading="lazy">'
            card += nodes.raw("", image, format="html")
        card += nodes.paragraph("", "", nodes.strong("", "", link))
        card += nodes.paragraph("", "", *self.parse_inline(chapter.promise)[0])
        points = nodes.bullet_list(classes=["will"])
        for words in will(chapter):
            points += nodes.list_item("", nodes.paragraph("", "", *self.parse_inline(words)[0]))
        card += points
        words = f"{chapter.minutes} minutes to read, {chapter.seconds} seconds to run"
        card += nodes.paragraph("", words, classes=["takes"])
        return card


def draw(app, error):
    "Write the pictures of the cards into the site."
    target = Path(app.outdir) / "_static" / "cards"
    target.mkdir(parents=True, exist_ok=True)
    for number, (png, _) in thumbnails().items():
        smaller(png).save(target / f"{number}.png", optimize=True)


def setup(app):
    app.add_directive("chapter-cards", ChapterCards)
    app.connect("build-finished", draw)
    return {"parallel_read_safe": True}
