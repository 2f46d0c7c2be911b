// The gallery of bugs: show the cards that fit what was chosen in the boxes, and say how many there are.

const form = document.querySelector(".gallery-form");
const cards = [...document.querySelectorAll(".gallery-card")];
const boxes = [...form.querySelectorAll("select")];

function filter() {
  const fits = (card) => boxes.every((box) => box.value === "" || card.dataset[box.name] === box.value);
  for (const card of cards) card.hidden = !fits(card);
  const shown = cards.filter((card) => !card.hidden).length;
  form.querySelector("[role=status]").textContent = `${shown} of ${cards.length} set-ups`;
}

form.addEventListener("change", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter(); // a browser may have kept what was chosen
