"""The directive `{chapter-cards}`: a card for each chapter, with what its first cell says of itself."""

from docutils import nodes
from docutils.parsers.rst import Directive

from tools.chapters import chapters


class ChapterCards(Directive):
    "List the chapters: 01, 02, … and 00, the workbench, last."

    def run(self):
        self.state.document.settings.env.note_reread()
        cards = nodes.bullet_list(classes=["cards"])
        for chapter in chapters():
            self.state.document.settings.env.note_dependency(str(chapter.path))
            cards += self.card(chapter)
        return [cards]

    def card(self, chapter):
        "Make the card of one chapter."
        link = nodes.reference("", chapter.title, refuri=f"chapters/{chapter.stem}.html", internal=True)
        words = f"{chapter.minutes} minutes to read, {chapter.seconds} seconds to run"
        takes, head = nodes.paragraph("", words, classes=["takes"]), nodes.paragraph("", "", nodes.strong("", "", link))
        return nodes.list_item("", head, nodes.paragraph("", chapter.promise), takes)


def setup(app):
    app.add_directive("chapter-cards", ChapterCards)
    return {"parallel_read_safe": True}
