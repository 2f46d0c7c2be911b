// Thin a page out for axe: thousands of elements are of a few kinds, and what is found in one would be found in all.
() => {
    const count = () => document.querySelectorAll("*").length, before = count(), seen = new Set();
    const isFirst = kind => !seen.has(kind) && seen.add(kind);

    // A code token's kind is its class and where it stands. The others become plain text.
    for (const token of document.querySelectorAll(".highlight pre *")) {
        const parent = token.parentElement, frame = token.closest(".highlight").parentElement;
        const kind = [token.tagName, token.className, parent.className, frame.className, token.tabIndex].join("|");
        if (!isFirst(kind)) token.replaceWith(...token.childNodes);
    }

    // Formulas but the first of their kind are emptied.
    for (const formula of document.querySelectorAll(".math"))
        if (!isFirst(formula.tagName + formula.parentElement.tagName)) formula.replaceChildren();

    // A block's kind is what it is made of, element by element, and what it stands in. The others go, innermost first,
    // but where nothing would be left in their place.
    const look = part => [part.tagName, part.className, part.getAttribute("style"), part.tabIndex, part.hidden].join(" ");
    const blocks = document.querySelectorAll("main :is(.cell, details, tr, p, figure, div, pre), li");
    for (const block of [...blocks].reverse()) {
        const parent = block.parentElement, kind = [parent, block, ...block.querySelectorAll("*")].map(look).join();
        const fillsIt = parent.textContent.trim() === block.textContent.trim();
        if (!isFirst(kind) && !fillsIt) block.remove();
    }

    // Shadows at the edges of what scrolls are gradients, and axe judges no colour on a gradient.
    for (const element of document.querySelectorAll("*"))
        if (getComputedStyle(element).backgroundImage !== "none")
            element.style.setProperty("background-image", "none", "important");
    return [before, count()];
}
