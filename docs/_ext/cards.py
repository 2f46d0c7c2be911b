"""The directive `{chapter-cards}`: a card for each chapter, with what its first cell says of itself."""

import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


class ChapterCards(Directive):
    "List the chapters: 01, 02, … and 00, the workbench, last."

    def run(self):
        env = self.state.document.settings.env
        paths = sorted((Path(env.srcdir) / "chapters").glob("*.ipynb"), key=lambda path: (path.name < "01", path.name))
        cards = nodes.bullet_list(classes=["cards"])
        for path in paths:
            env.note_dependency(str(path))
            cards += self.card(path)
        return [cards]

    def card(self, path):
        "Make the card of one chapter."
        text = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, promise = re.match(r"# (.+)\n\n> (.+)", text).groups()
        minutes, seconds = re.search(r"\*\*Takes\*\* (\d+) minutes to read, (\d+) seconds to run", text).groups()
        link = nodes.reference("", title, refuri=f"chapters/{path.stem}.html", internal=True)
        takes = nodes.paragraph("", f"{minutes} minutes to read, {seconds} seconds to run", classes=["takes"])
        head = nodes.paragraph("", "", nodes.strong("", "", link))
        return nodes.list_item("", head, nodes.paragraph("", promise), takes)


def setup(app):
    app.add_directive("chapter-cards", ChapterCards)
    return {"parallel_read_safe": True}
