"use strict";
// Filters the example answers. Without it the whole list stays readable: the controls are hidden then.
const controls = document.getElementById("flip-controls");
if (controls) {
  const status = document.getElementById("flip-status");
  const cards = [...document.querySelectorAll(".flip")].map((card) => [card, card.textContent.toLowerCase()]);
  const more = document.querySelector(".more");
  const apply = () => {
    const wanted = controls.elements.direction.value;
    const query = controls.elements.query.value.trim().toLowerCase();
    let shown = 0;
    for (const [card, text] of cards) {
      card.hidden = (wanted !== "all" && card.dataset.direction !== wanted) || !text.includes(query);
      shown += card.hidden ? 0 : 1;
    }
    if (more && (wanted !== "all" || query)) more.open = true;
    status.textContent = `${shown} of ${cards.length} examples shown`;
  };
  controls.addEventListener("input", apply);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  apply();
}
