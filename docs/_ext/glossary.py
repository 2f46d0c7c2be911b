"""The glossary, made of the chapters' own definitions, and links from the first use of a term to it.

A chapter defines a term by setting it in **bold** in one of these forms, which the chapters use anyway:

- at the start of a sentence or of an item: `A **mini-batch** is …`, `**Softmax** makes …`, `- **fork** copies …`;
- at its end: `This is **reverse-mode automatic differentiation**.`, `How little is the **learning rate**.`,
  `is called **topological**`, `…: **augmentation**`.

Bold for emphasis stands elsewhere in a sentence, holds a number or ends in a sign, and is none. The glossary shows the
sentence, and links to it. Of several definitions the first counts, in the order in which the chapters are read.
"""

import copy
import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from tools.chapters import chapters

TERM = re.compile(r"[A-Za-z][A-Za-z-]*(?: [a-z-]+){0,3}$")
BEFORE = re.compile(r"(?:^|[.?!)] )(?:A|An|The|These|An?|a|the)? ?$")  # the term begins its sentence
ENDS = re.compile(r"(?:\bThis is (?:the \w+ of )?|\bis an? |\bis the |\bcalled |: )$")  # … or ends it
AFTER = re.compile(r" (?:\w+ )?[a-z(*`=]|, a|$|[:,]| of ")
LAST = re.compile(r"[.,:;](?: |$)| \(")
FORM = {"You will", "You need", "Takes"}  # of a first cell
SHORT = {"This", "These", "How", "It"}  # such a sentence leans on the one before
# Words of every day, too: listed, not linked.
ORDINARY = {"identical", "close", "graph", "node", "fork", "spawn", "collate", "dataset", "hook"}


class Entries(nodes.General, nodes.Element):
    "Where the entries will stand, when all chapters are read."


class Glossary(SphinxDirective):
    "List all terms."

    def run(self):
        self.env.note_reread()
        return [Entries()]


def is_definition(strong):
    "Return whether a bold term is defined where it stands."
    term, paragraph = strong.astext(), strong.parent
    if not isinstance(paragraph, nodes.paragraph) or term in FORM or not TERM.match(term):
        return False
    at = paragraph.index(strong)
    before = "".join(child.astext() for child in paragraph[:at])
    after = "".join(child.astext() for child in paragraph[at + 1 :])
    begins = BEFORE.search(before) and AFTER.match(after) and not after.startswith(":\n")
    return bool(begins or (ENDS.search(before) and LAST.match(after)))


def sentence(strong):
    "Copy the sentence around a bold term: a list of nodes. One that leans on the sentence before it brings that, too."
    parts = [[]]
    for child in strong.parent:
        if isinstance(child, nodes.Text):
            pieces = re.split(r"(?<=[.?!]) +(?=[A-Z(])", str(child))
            parts[-1].append(nodes.Text(pieces[0]))
            parts += [[nodes.Text(piece)] for piece in pieces[1:]]
        else:
            parts[-1].append(child)
    at = next(i for i, part in enumerate(parts) if strong in part)
    words = "".join(each.astext() for each in parts[at])
    start = at - 1 if at and words.split()[0] in SHORT else at
    found = []
    for part in parts[start : at + 1]:
        found += ([nodes.Text(" ")] if found else []) + [copied(each) for each in part]
    return found


def copied(node):
    "Copy a node without what belongs to its place: ids, and the targets of links that only that page can resolve."
    if isinstance(node, nodes.Text):
        return nodes.Text(str(node))
    if node.tagname in ("pending_xref", "reference"):
        return nodes.inline("", "", *[copied(child) for child in node.children])
    twin = copy.copy(node) if not node.children else node.copy()
    twin["ids"] = []
    twin.children = []
    twin.extend(copied(child) for child in node.children)
    return twin


def collect(app, doctree):
    "Mark each definition of a chapter with an id, and keep it."
    docname = app.env.docname
    app.env.definitions = getattr(app.env, "definitions", {})
    found = app.env.definitions[docname] = {}
    if not docname.startswith("chapters/"):
        return
    for strong in doctree.findall(nodes.strong):
        if is_definition(strong):
            term = strong.astext()
            term = term if term[1:2].isupper() else term[0].lower() + term[1:]
            if term not in found:
                strong["ids"].append(nodes.make_id(f"term-{term}"))
                found[term] = (strong["ids"][-1], sentence(strong))


def forget(app, env, docname):
    "Drop what a page defined."
    getattr(env, "definitions", {}).pop(docname, None)


def again(app, env):
    "Have chapters written anew when the terms have changed, as they link to them."
    now = {term: place[:2] for term, place in terms(env).items()}
    before, env.terms_before = getattr(env, "terms_before", None), now
    return [name for name in env.found_docs if name.startswith("chapters/")] if now != before else []


def terms(env):
    "Return {term: (page, id, sentence, chapter)}: of several definitions the first."
    found = {}
    for chapter in chapters():
        page = f"chapters/{chapter.stem}"
        for term, (anchor, words) in getattr(env, "definitions", {}).get(page, {}).items():
            found.setdefault(term, (page, anchor, words, chapter))
    return found


class Fill(SphinxPostTransform):
    "Put the entries of the glossary in their place; link the first use of a term in a chapter."

    default_priority = 6  # after names in backticks have become links

    def run(self):
        known = terms(self.env)
        for entries in list(self.document.findall(Entries)):
            entries.replace_self(self.entries(known))
        if self.env.docname.startswith("chapters/"):
            self.link(known)

    def entries(self, known):
        "Make the list of all terms."
        found = nodes.definition_list(classes=["glossary-of-chapters"])
        for term in sorted(known, key=str.lower):
            page, anchor, words, chapter = known[term]
            uri = self.app.builder.get_relative_uri(self.env.docname, page) + f"#{anchor}"
            where = nodes.reference("", chapter.title, refuri=uri, internal=True)
            said = nodes.paragraph("", "", *[copied(each) for each in words], nodes.Text(" "), where)
            head = nodes.term("", term, ids=[nodes.make_id(f"term-{term}")])
            found += nodes.definition_list_item("", head, nodes.definition("", said))
        return found

    def link(self, known):
        "Link the first use of each term that another chapter defines, in running text."
        wanted = {
            term: place for term, place in known.items() if place[0] != self.env.docname and term not in ORDINARY
        }
        own = self.env.definitions.get(self.env.docname, {})
        wanted = {term: place for term, place in wanted.items() if term not in own}
        if not wanted:
            return
        words = "|".join(re.escape(term) for term in sorted(wanted, key=len, reverse=True))
        pattern = re.compile(rf"\b({words})(s|es)?\b", re.IGNORECASE)
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if not isinstance(paragraph.parent, (nodes.section, nodes.list_item)):
                continue
            for text in [child for child in paragraph.children if isinstance(child, nodes.Text)]:
                match = next((m for m in pattern.finditer(str(text)) if self.name(m[1], wanted)), None)
                if not match:
                    continue
                term = self.name(match[1], wanted)
                page, anchor, *_ = wanted.pop(term)
                uri = self.app.builder.get_relative_uri(self.env.docname, page) + f"#{anchor}"
                link = nodes.reference("", match[0], refuri=uri, internal=True, classes=["term-link"])
                parts = [nodes.Text(str(text)[: match.start()]), link, nodes.Text(str(text)[match.end() :])]
                paragraph[paragraph.index(text) : paragraph.index(text) + 1] = parts

    def name(self, word, wanted):
        "Return the term that a word is, None if it was linked already."
        return next((term for term in wanted if term.lower() == word.lower()), None)


def setup(app):
    app.add_node(Entries)
    app.add_directive("glossary-of-chapters", Glossary)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", forget)
    app.connect("env-updated", again)
    app.add_post_transform(Fill)
    return {"parallel_read_safe": False, "env_version": 1}
