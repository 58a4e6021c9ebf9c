"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cases = [...document.querySelectorAll("details.case")];
  const cells = new Map([...document.querySelectorAll("td[data-cell]")].map((cell) => [cell.dataset.cell, cell]));
  const rows = [...document.querySelectorAll(".grid tbody tr")];
  const text = byId("text"), verdict = byId("verdict"), bad = byId("bad");

  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of cases) {
      const fits = words.every((word) => item.dataset.words.includes(word))
        && (!verdict.value || item.dataset.verdict === verdict.value)
        && (!bad.checked || item.classList.contains("bad"));
      item.hidden = !fits;
      cells.get(item.id)?.classList.toggle("out", !fits);
      shown += fits;
    }
    for (const row of rows) row.hidden = !row.querySelector("td[data-cell]:not(.out)");
    for (const grid of document.querySelectorAll(".grid")) grid.hidden = !grid.querySelector("tbody tr:not([hidden])");
    byId("shown").textContent = shown === cases.length ? `${shown} cases` : `${shown} of ${cases.length} cases`;
    byId("nothing").hidden = shown > 0;
  }

  function follow() {
    let id;
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const item = id && byId(id);
    if (!item || !item.classList.contains("case")) return;
    if (item.hidden) { byId("filters").reset(); filter(); }
    item.open = true;
    item.scrollIntoView();
    item.querySelector("summary").focus({preventScroll: true});
  }

  let unpacked;
  async function unpack() {
    const raw = Uint8Array.from(atob(byId("transcripts").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  async function showTranscript(details) {
    const target = details.querySelector("pre.console");
    if (!details.open || target.childNodes.length) return;
    unpacked ??= unpack();
    const {texts, cases: all} = await unpacked;
    const [stamps, steps, stages] = all[details.dataset.transcript];
    const marks = new Map();
    for (const [line, name] of stages) marks.set(line, [...(marks.get(line) ?? []), name]);
    const parts = document.createDocumentFragment();
    let place = 0;
    steps.forEach((step, line) => {
      place += step;
      if (marks.has(line)) {
        const mark = document.createElement("span");
        mark.className = "stage";
        mark.textContent = `stage: ${marks.get(line).join(", ")}`;
        parts.append(mark, "\n");
      }
      parts.append(stamps[line] + texts[place] + "\n");
    });
    target.replaceChildren(parts);
  }

  for (const event of ["input", "change"]) byId("filters").addEventListener(event, filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const item of document.querySelectorAll("details.transcript")) {
    item.addEventListener("toggle", () => showTranscript(item));
  }
  for (const item of cases) {
    item.addEventListener("toggle", () => {
      if (item.open) history.replaceState(null, "", `#${encodeURIComponent(item.id)}`);
    });
  }
  window.addEventListener("hashchange", follow);
  filter();
  // Not before the browser's own jump to the fragment, which takes the focus away.
  window.addEventListener("load", () => setTimeout(follow));
})();
