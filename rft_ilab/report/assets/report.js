"use strict";
// Filters the answers. Without it the whole list stays readable: the controls are hidden then.
const controls = document.getElementById("flip-controls");
if (controls) {
  const status = document.getElementById("flip-status");
  const cards = [...document.querySelectorAll(".flip")].map((card) => [card, card.textContent.toLowerCase()]);
  const more = document.querySelector(".more");
  const apply = () => {
    const direction = controls.elements.direction.value;
    const skill = controls.elements.skill.value;
    const words = controls.elements.query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [card, text] of cards) {
      const fits = (direction === "all" || card.dataset.direction === direction)
        && (!skill || card.dataset.skill === skill) && words.every((word) => text.includes(word));
      card.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    if (more && (direction !== "all" || skill || words.length)) more.open = true;
    status.textContent = `${shown} of ${cards.length} answers shown`;
  };
  controls.addEventListener("input", apply);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("reset", () => setTimeout(apply));
  controls.hidden = false;
  apply();
}
