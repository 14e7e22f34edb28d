"use strict";

const byId = id => document.getElementById(id);
const say = text => { byId("said").textContent = text; };

// The theme is the system's until the button says otherwise.
{
  const root = document.documentElement, button = byId("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => button.setAttribute("aria-pressed", dark());
  const kept = (() => { try { return localStorage.getItem("scoreplug-theme"); } catch { return null; } })();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("scoreplug-theme", root.dataset.theme); } catch { /* a browser that keeps nothing */ }
    show();
  });
  show();
}

// A click on a title sorts; what has no value comes last, either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => title.querySelector("button").addEventListener("click", () => {
    const up = title.getAttribute("aria-sort") !== "ascending";
    titles.forEach(other => other.removeAttribute("aria-sort"));
    title.setAttribute("aria-sort", up ? "ascending" : "descending");
    const last = cell => cell.textContent === "";
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      if (last(x) || last(y)) return last(x) - last(y);
      const numbers = x.dataset.key !== undefined && y.dataset.key !== undefined;
      const order = numbers ? x.dataset.key - y.dataset.key : x.textContent.localeCompare(y.textContent);
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  }));
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), character => character.charCodeAt(0));
}

function download(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`${name} is saved`);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // a page from a file has no clipboard in every browser
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("copied");
}
