"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cases = [...document.querySelectorAll("details.case")];
  const cells = new Map([...document.querySelectorAll("td[data-cell]")].map((cell) => [cell.dataset.cell, cell]));
  const rows = [...document.querySelectorAll(".grid tbody tr")];
  const text = byId("text"), verdict = byId("verdict"), bad = byId("bad");

  const words = new Map();
  function wordsOf(item) {
    if (!words.has(item)) words.set(item, `${item.querySelector("summary").textContent} ${item.dataset.tests ?? ""} ${item.closest(".alike")?.querySelector(".problem").textContent ?? ""}`.toLowerCase());
    return words.get(item);
  }

  function filter() {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of cases) {
      const fits = (!verdict.value || item.dataset.verdict === verdict.value)
        && (!bad.checked || item.classList.contains("bad"))
        && wanted.every((word) => wordsOf(item).includes(word));
      if (item.hidden === fits) item.hidden = !fits;
      cells.get(item.id)?.classList.toggle("out", !fits);
      shown += fits;
    }
    for (const row of rows) row.hidden = !row.querySelector("td[data-cell]:not(.out)");
    for (const grid of document.querySelectorAll(".grid")) grid.hidden = !grid.querySelector("tbody tr:not([hidden])");
    for (const group of document.querySelectorAll(".alike")) group.hidden = !group.querySelector("details.case:not([hidden])");
    byId("shown").textContent = shown === cases.length ? `${shown} cases` : `${shown} of ${cases.length} cases`;
    byId("nothing").hidden = shown > 0;
  }

  // What comes into view above it gets its real height only then, and moves it again.
  function bring(item, frames = 12) {
    item.scrollIntoView({behavior: "instant"});
    if (frames) requestAnimationFrame(() => bring(item, frames - 1));
  }

  function follow() {
    let id;
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const item = id && byId(id);
    if (!item || !item.classList.contains("case")) return;
    if (item.hidden) { byId("filters").reset(); filter(); }
    item.open = true;
    bring(item);
    item.querySelector("summary").focus({preventScroll: true});
  }

  const blocks = document.getElementsByClassName("block"), unpacked = new Map();
  async function unpack(number) {
    const raw = Uint8Array.from(atob(blocks[number].textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  async function detailsOf(item) {
    const [block, place] = item.dataset.place.split(" ").map(Number);
    if (!unpacked.has(block)) unpacked.set(block, unpack(block));
    return {place, ...await unpacked.get(block)};
  }

  async function fill(item) {
    if (!item.open || item.querySelector(".body")) return;
    const holder = document.createElement("template");
    try {
      const {bodies, place} = await detailsOf(item);
      holder.innerHTML = bodies[place];  // escaped by what made the page, and no script runs in it
    } catch {
      holder.innerHTML = '<div class="body"><p class="notice">This browser cannot unpack the details; results.json has them.</p></div>';
    }
    if (item.querySelector(".body")) return;
    item.append(holder.content);
    listen(item);
  }

  async function showTranscript(item, details) {
    const target = details.querySelector("pre.console");
    if (!details.open || target.childNodes.length) return;
    const {texts, transcripts, place: number} = await detailsOf(item);
    const [stamps, steps, stages] = transcripts[number];
    const marks = new Map();
    for (const [line, name] of stages) marks.set(line, [...(marks.get(line) ?? []), name]);
    const parts = document.createDocumentFragment();
    let place = 0, clock = 0;
    steps.forEach((step, line) => {
      place += step;
      let stamp = stamps[line];
      if (typeof stamp === "number") {
        clock += stamp;
        stamp = `[${String(Math.floor(clock / 1e6)).padStart(5)}.${String(clock % 1e6).padStart(6, "0")}] `;
      }
      if (marks.has(line)) {
        const mark = document.createElement("span");
        mark.className = "stage";
        mark.textContent = `stage: ${marks.get(line).join(", ")}`;
        parts.append(mark, "\n");
      }
      parts.append(stamp + texts[place] + "\n");
    });
    target.replaceChildren(parts);
  }

  for (const event of ["input", "change"]) byId("filters").addEventListener(event, filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  function listen(item) {
    const details = item.querySelector("details.transcript");
    details?.addEventListener("toggle", () => showTranscript(item, details));
  }
  for (const item of cases) {
    listen(item);
    item.addEventListener("toggle", () => {
      fill(item);
      if (item.open) history.replaceState(null, "", `#${encodeURIComponent(item.id)}`);
    });
  }
  window.addEventListener("hashchange", follow);
  filter();
  // Not before the browser's own jump to the fragment, which takes the focus away.
  window.addEventListener("load", () => setTimeout(follow));
})();
