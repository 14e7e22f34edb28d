"use strict";

// Every word of the filter has to occur in a row.
const filter = byId("filter"), rows = [...byId("all").tBodies[0].rows];
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  byId("filter-says").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
});

// A plot is one stop of the tab key; arrow keys go from mark to mark.
for (const plot of document.querySelectorAll(".plot")) {
  const points = [...plot.querySelectorAll("svg .point[data-words]")], said = plot.querySelector(".said");
  const show = point => { said.textContent = point.dataset.words; };
  points.forEach((point, i) => {
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("focus", () => show(point));
    point.addEventListener("click", () => point.focus());
    point.addEventListener("keydown", event => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const next = points[(i + by + points.length) % points.length];
      point.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
  const families = [...plot.querySelectorAll(".family")];
  for (const family of families) {
    family.addEventListener("click", () => {
      const pressed = family.getAttribute("aria-pressed") !== "true";
      for (const other of families) other.setAttribute("aria-pressed", pressed && other === family);
      for (const point of points) point.classList.toggle("dimmed", pressed && point.dataset.family !== family.dataset.family);
    });
  }
}

// The rows are kept compressed, as the files that they were.
const files = JSON.parse(byId("data").textContent);
for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", async () => {
    const packed = new Blob([bytesOf(files[button.dataset.save])]).stream().pipeThrough(new DecompressionStream("gzip"));
    download(`rows.${button.dataset.save}`, await new Response(packed).blob());
  });
}
