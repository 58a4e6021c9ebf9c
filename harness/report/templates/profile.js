// Enlarges a frame: what is beside it, and beside those that called it, goes.
"use strict";
const flame = document.getElementById("flame");
flame.addEventListener("click", (event) => {
  const chosen = event.target.closest(".frame");
  if (!chosen) return;
  for (const hidden of flame.querySelectorAll("[hidden]")) hidden.hidden = false;
  for (let frame = chosen; frame.parentElement !== flame; frame = frame.parentElement.closest(".frame")) {
    for (const beside of frame.parentElement.children) beside.hidden = beside !== frame;
  }
});
