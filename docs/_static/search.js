// The search: sections that hold every word, best first, with a summary. A word that is nowhere gives way to the nearest.
// The words of a text; of `label_smoothing` also `label` and `smoothing`.
const words = (text) => (text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [])
  .flatMap((word) => (/[^_]_+[^_]/.test(word) ? [word, ...word.split("_").filter(Boolean)] : [word]));
const MOST = 60;

// Edit distance of two words, as far as `limit`.
function distance(a, b, limit) {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let row = [...Array(b.length + 1).keys()];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] !== b[j - 1]));
    }
    row = next;
  }
  return row[b.length];
}

function nearest(word, known) {
  const limit = word.length < 5 ? 1 : 2;
  let best = null, least = limit + 1;
  for (const [other, count] of known) {
    const far = distance(word, other, limit);
    if (far < least || (far === least && best && count > known.get(best))) { least = far; best = other; }
  }
  return best;
}

const sections = SECTIONS.map(([page, anchor, title, heading, text]) => {
  const body = words(text), head = words(`${heading || title}`);
  return { page, anchor, title, heading, text, body, head };
});
const known = new Map();
for (const { body, head } of sections) for (const word of [...body, ...head]) known.set(word, (known.get(word) || 0) + 1);

// The more a word stands in a section, and the shorter that is, the better; a title counts most.
function score(section, asked) {
  let sum = 0;
  for (const word of asked) {
    const whole = section.body.filter((each) => each === word).length;
    const begun = whole || section.body.filter((each) => each.startsWith(word)).length / 2;
    const title = section.head.includes(word) ? 8 : section.head.some((each) => each.startsWith(word)) ? 4 : 0;
    if (!begun && !title) return 0;
    sum += title + (4 * begun) / (begun + 1 + section.body.length / 200);
  }
  return sum;
}

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

// About thirty words around the first that was asked for.
function summary(text, asked) {
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(${asked.map(escape).join("|")})[\\p{L}\\p{N}_]*`, "giu");
  const at = text.search(pattern);
  const start = at < 90 ? 0 : text.indexOf(" ", at - 80) + 1;
  const part = text.slice(start, start + 220).replace(/\s\S*$/, "");
  const found = document.createElement("p");
  let last = 0;
  if (start) found.append("… ");
  for (const match of part.matchAll(pattern)) {
    const mark = document.createElement("mark");
    mark.textContent = match[0];
    found.append(part.slice(last, match.index), mark);
    last = match.index + match[0].length;
  }
  found.append(part.slice(last), start + part.length < text.length ? " …" : "");
  return found;
}

function search(question) {
  const box = document.getElementById("search-results");
  const status = document.getElementById("search-status");
  box.replaceChildren();
  const instead = [];
  const asked = (question.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || []).map((word) => {
    if (sections.some(({ body, head }) => [...body, ...head].some((each) => each.startsWith(word)))) return word;
    const near = nearest(word, known);
    if (near) instead.push(near);
    return near || word;
  });
  if (!asked.length) { status.textContent = ""; return; }
  const found = sections.map((section) => [score(section, asked), section]).filter(([points]) => points);
  found.sort((a, b) => b[0] - a[0]);
  const about = instead.length ? ` Shown for: ${asked.join(" ")}.` : "";
  const more = found.length > MOST ? ` The first ${MOST} are shown.` : "";
  status.textContent = `${found.length || "No"} section${found.length === 1 ? "" : "s"} found.${about}${more}`;
  const list = document.createElement("ol");
  for (const [, { page, anchor, title, heading, text }] of found.slice(0, MOST)) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `${page}.html${anchor ? "#" + anchor : ""}`;
    link.textContent = heading || title;
    item.append(link);
    if (heading) {
      const where = document.createElement("span");
      where.className = "where";
      where.textContent = ` ${title}`;
      item.append(where);
    }
    if (text) item.append(summary(text, asked));
    list.append(item);
  }
  if (found.length) box.append(list);
}

const field = document.querySelector(".bd-search-container input[type=search]");
const asked = new URLSearchParams(location.search).get("q") || "";
field.value = asked;
field.focus();
search(asked);
field.oninput = () => search(field.value);
