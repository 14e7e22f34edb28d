"use strict";

const data = JSON.parse(byId("data").textContent);
const { height, width, quantiles: levels } = data;

// An array of the page: values[(row * width + column) * channels + channel].
function array({ kind, offset, scale, data: text, shape }) {
  const buffer = bytesOf(text).buffer;
  const raw = kind === "float32" ? new Float32Array(buffer) : kind === "uint16" ? new Uint16Array(buffer) : new Uint8Array(buffer);
  return { shape, values: kind === "float32" ? raw : Float32Array.from(raw, i => offset + scale * i) };
}

const pictures = data.pictures.map(entry => {
  const { shape, values } = array(entry.array);
  return { ...entry, shape, values, height: shape[0], width: shape[1], channels: shape[2] ?? 1 };
});
const named = name => pictures.find(picture => picture.name === name);
const tables = Object.fromEntries(Object.entries(data.colours).map(([name, text]) => [name, bytesOf(text)]));
const samples = pictures.filter(picture => picture.sample);
const summary = data.summary && Object.fromEntries(Object.entries(data.summary).map(([name, entry]) => [name, array(entry).values]));
const text = value => Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "-";

// --- Drawing: a window [low, high] of all images; measurement, deviation and error keep their own scales.

const whole = { low: data.low, high: data.high };
const range = { ...whole };
const endsOf = picture => picture.of_image ? range : picture;

function paint(canvas, picture, values = picture.values, start = 0) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const { low, high } = endsOf(picture), factor = 255 / (high - low), table = tables[picture.colours];
  const context = canvas.getContext("2d"), image = context.createImageData(picture.width, picture.height), out = image.data;
  const shade = value => Math.max(0, Math.min(255, Math.round((value - low) * factor)));
  for (let i = 0, to = 0; to < out.length; i += 1, to += 4) {
    for (let c = 0; c < 3; c += 1) {
      out[to + c] = picture.channels === 3 ? shade(values[start + 3 * i + c]) : table[3 * shade(values[start + i]) + c];
    }
    out[to + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function scaleBar(place, picture, title) {
  const bar = document.createElement("canvas"), ends = document.createElement("div"), { low, high } = endsOf(picture);
  bar.setAttribute("aria-hidden", "true");
  paint(bar, { ...picture, height: 1, width: 256, channels: 1, of_image: false, low, high }, Array.from({ length: 256 }, (_, i) => low + (high - low) * i / 255));
  for (const value of [low, (low + high) / 2, high]) ends.append(Object.assign(document.createElement("span"), { textContent: text(value) }));
  place.replaceChildren(...(title ? [Object.assign(document.createElement("b"), { textContent: title })] : []), bar, ends);
}

// --- Two images and a seam

const stage = byId("stage"), left = byId("left"), right = byId("right"), divide = byId("divide");
const comparable = pictures.filter(picture => picture.comparable);
for (const select of [left, right]) select.append(...comparable.map(picture => new Option(picture.title, picture.name)));
byId("saved").append(...pictures.map(picture => new Option(picture.title, picture.name)));
left.value = (named("truth") ?? named("baseline") ?? comparable[0]).name;
right.value = "mean";

function moveSeam() {
  byId("over").style.clipPath = `inset(0 ${100 - divide.value}% 0 0)`;
  byId("seam").style.left = `${divide.value}%`;
}

function compare() {
  paint(byId("over"), named(left.value));
  paint(byId("under"), named(right.value));
  scaleBar(byId("left-scale"), named(left.value), named(left.value).title);
  scaleBar(byId("right-scale"), named(right.value), named(right.value).title);
  for (const thumb of document.querySelectorAll("button.thumb")) thumb.setAttribute("aria-pressed", thumb.dataset.name === right.value);
  inspect();
}

for (const select of [left, right]) select.addEventListener("change", compare);
byId("swap").addEventListener("click", () => { [left.value, right.value] = [right.value, left.value]; compare(); });
divide.addEventListener("input", moveSeam);
byId("seam").addEventListener("pointerdown", event => { event.preventDefault(); byId("seam").setPointerCapture(event.pointerId); });
byId("seam").addEventListener("pointermove", event => {
  if (!byId("seam").hasPointerCapture(event.pointerId)) return;
  const box = stage.getBoundingClientRect();
  divide.value = 100 * (event.clientX - box.left) / box.width;
  moveSeam();
});

// --- The cursor: one pixel of every sample. It starts where they differ most.

const spread = named("std")?.values, widest = spread ? spread.indexOf(spread.reduce((a, b) => Math.max(a, b))) : 0;
const cursor = { row: Math.floor(widest / width), column: widest % width };
const within = (value, size) => Math.max(0, Math.min(size - 1, value));

function at(picture) {
  const first = (cursor.row * width + cursor.column) * picture.channels;
  return [...picture.values.subarray(first, first + picture.channels)];
}
const average = values => values.reduce((sum, value) => sum + value, 0) / values.length;

// As numpy.quantile does it: linear between the sorted values.
function quantile(sorted, share) {
  const place = share * (sorted.length - 1), below = Math.floor(place), above = Math.ceil(place);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

function statistics(values) {
  const pixel = cursor.row * width + cursor.column;
  if (summary) {
    const of = levels.map((_, i) => summary.quantiles[i * height * width + pixel]);
    return { mean: summary.mean[pixel], std: summary.std[pixel], of };
  }
  const mean = average(values), sorted = [...values].sort((a, b) => a - b);
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, std: Math.sqrt(squares / (values.length - 1)), of: levels.map(share => quantile(sorted, share)) };
}

function inspect() {
  const values = samples.map(sample => average(at(sample))), found = statistics(values);
  const truth = named("truth") && average(at(named("truth")));
  byId("readout").textContent = `row ${cursor.row}, column ${cursor.column}`;
  const lines = [
    [`left, ${named(left.value).title}`, at(named(left.value)).map(text).join(" ")],
    [`right, ${named(right.value).title}`, at(named(right.value)).map(text).join(" ")],
    ["mean", text(found.mean)],
    ["standard deviation", text(found.std)],
    ...levels.map((share, i) => [`${100 * share} %`, text(found.of[i])]),
    ...(truth === undefined ? [] : [["truth", text(truth)]]),
  ];
  byId("pixel").tBodies[0].replaceChildren(...lines.map(([name, value]) => {
    const row = document.createElement("tr");
    for (const word of [name, value]) row.insertCell().textContent = word;
    return row;
  }));
  strip(values, found.of, truth);
  const cross = byId("cross").style;
  cross.left = `${100 * (cursor.column + .5) / width}%`;
  cross.top = `${100 * (cursor.row + .5) / height}%`;
  cross.width = `${100 / width}%`;
  cross.height = `${100 / height}%`;
}

function strip(values, of, truth) {
  const all = [...values, ...of, ...(truth === undefined ? [] : [truth])];
  const middle = (Math.min(...all) + Math.max(...all)) / 2;
  const half = Math.max((Math.max(...all) - Math.min(...all)) / 2, (whole.high - whole.low) / 200) * 1.1;
  const x = value => 160 + 145 * (value - middle) / half;
  const draw = (tag, attributes, words) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (words !== undefined) element.textContent = words;
    return element;
  };
  byId("strip").replaceChildren(
    draw("line", { class: "axis", x1: 10, x2: 310, y1: 72, y2: 72 }),
    ...[[15, "start", -1], [160, "middle", 0], [305, "end", 1]].map(([place, anchor, side]) => draw("text", { x: place, y: 87, "text-anchor": anchor }, text(middle + side * half))),
    draw("rect", { class: "box", x: x(of[1]), width: Math.max(x(of[3]) - x(of[1]), 1), y: 24, height: 38, rx: 3 }),
    draw("line", { class: "line", x1: x(of[0]), x2: x(of[4]), y1: 43, y2: 43 }),
    draw("line", { class: "line", x1: x(of[2]), x2: x(of[2]), y1: 24, y2: 62 }),
    ...values.map((value, i) => draw("circle", { class: "dot", cx: x(value), cy: 30 + 26 * (i * .618 % 1), r: 3, "data-value": value })),
    ...(truth === undefined ? [] : [draw("path", { class: "truth", d: `M${x(truth)} 18V70` }), draw("text", { class: "truth-word", x: within(x(truth), 300), y: 12, "text-anchor": "middle" }, "truth")]),
  );
}

function goTo(row, column) {
  cursor.row = within(row, height);
  cursor.column = within(column, width);
  inspect();
}
for (const kind of ["pointermove", "pointerdown"]) {
  stage.addEventListener(kind, event => {
    const box = stage.getBoundingClientRect();
    goTo(Math.floor((event.clientY - box.top) / box.height * height), Math.floor((event.clientX - box.left) / box.width * width));
  });
}
stage.addEventListener("keydown", event => {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!by) return;
  event.preventDefault();
  const stride = event.shiftKey ? 10 : 1;
  goTo(cursor.row + stride * by[0], cursor.column + stride * by[1]);
});

// --- All images

const thumbs = pictures.map(picture => {
  const thumb = document.createElement(picture.comparable ? "button" : "div"), canvas = document.createElement("canvas");
  const words = document.createElement("div"), bar = document.createElement("div");
  words.className = "words";
  bar.className = "thumb-scale";
  words.append(...[picture.title, picture.note].filter(Boolean).map(word => Object.assign(document.createElement("span"), { textContent: word })));
  thumb.className = "thumb";
  thumb.dataset.name = picture.name;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", picture.title);
  thumb.append(canvas, words, ...(picture.of_image ? [] : [bar]));
  if (picture.comparable) {
    thumb.type = "button";
    thumb.addEventListener("click", () => { right.value = picture.name; compare(); });
  }
  if (!picture.of_image) scaleBar(bar, picture);
  return { picture, canvas, thumb };
});
byId("gallery").append(...thumbs.map(({ thumb }) => thumb));

// --- From noise to samples

const path = data.trajectory && { ...data.trajectory, frames: data.trajectory.frames.map(array) };
if (path) {
  const [count, , , channels = 1] = path.frames[0].shape, last = path.frames.length - 1, slider = byId("level"), play = byId("play");
  const canvases = Array.from({ length: count }, (_, i) => {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `sample ${i + 1} on its way`);
    return canvas;
  });
  byId("frames").append(...canvases);
  path.show = () => {
    const frame = Number(slider.value), size = height * width * channels;
    const picture = { height, width, channels, colours: "gray", of_image: true };
    canvases.forEach((canvas, i) => paint(canvas, picture, path.frames[frame].values, i * size));
    const kind = frame === last ? "the samples" : `${path.denoised[frame] ? "E[x0 | xt]" : "xt"} at noise level ${text(path.levels[frame])}`;
    byId("level-says").textContent = `${frame + 1} of ${last + 1}: ${kind}`;
  };
  let timer;
  const stop = () => { clearInterval(timer); timer = undefined; play.textContent = "\u25B6\uFE0E"; };
  slider.addEventListener("input", () => { stop(); path.show(); });
  play.addEventListener("click", () => {
    if (timer !== undefined) return stop();
    if (Number(slider.value) === last) slider.value = 0;
    play.textContent = "\u23F8\uFE0E";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      path.show();
      if (Number(slider.value) === last) stop();
    }, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 120);
    path.show();
  });
}

// --- The gray range

const low = byId("low"), high = byId("high");
const [bottom, top_] = data.reach, grain = (top_ - bottom) / 400;
for (const slider of [low, high]) Object.assign(slider, { min: bottom, max: top_, step: grain });

function setRange(from, to) {
  if (!(Number.isFinite(from) && Number.isFinite(to) && from < to)) return showRange();
  Object.assign(range, { low: from, high: to });
  showRange();
  compare();
  for (const { picture, canvas } of thumbs) if (picture.of_image) paint(canvas, picture);
  if (path) path.show();
}
function showRange() {
  for (const [name, value] of Object.entries(range)) {
    byId(name).value = value;
    byId(`${name}-number`).value = text(value);
  }
}
low.addEventListener("input", () => setRange(Math.min(Number(low.value), range.high - grain), range.high));
high.addEventListener("input", () => setRange(range.low, Math.max(Number(high.value), range.low + grain)));
byId("low-number").addEventListener("change", event => setRange(event.target.valueAsNumber, range.high));
byId("high-number").addEventListener("change", event => setRange(range.low, event.target.valueAsNumber));
byId("reset").addEventListener("click", () => setRange(whole.low, whole.high));

// --- Files

function npy(shape, values) {
  const words = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  const header = words.padEnd(Math.ceil((words.length + 11) / 64) * 64 - 11) + "\n";
  const start = Uint8Array.from([0x93, ..."NUMPY".split("").map(letter => letter.charCodeAt(0)), 1, 0, header.length & 255, header.length >> 8]);
  return new Blob([start, header, Float32Array.from(values)], { type: "application/octet-stream" });
}
byId("save-npy").addEventListener("click", () => {
  const picture = named(byId("saved").value);
  download(`${picture.name.replaceAll(" ", "-")}.npy`, npy(picture.shape, picture.values));
});
byId("save-png").addEventListener("click", () => {
  const { picture, canvas } = thumbs.find(({ picture: { name } }) => name === byId("saved").value);
  canvas.toBlob(blob => download(`${picture.name.replaceAll(" ", "-")}.png`, blob));
});
byId("save-samples").addEventListener("click", () => {
  const values = new Float32Array(samples.length * samples[0].values.length);
  samples.forEach((sample, i) => values.set(sample.values, i * sample.values.length));
  download("samples.npy", npy([samples.length, ...samples[0].shape], values));
});
for (const button of document.querySelectorAll("[data-file]")) {
  button.addEventListener("click", () => download(button.dataset.file, data.files[button.dataset.file], "text/plain"));
}
byId("copy").addEventListener("click", () => copy(data.files["config.toml"]));

for (const { picture, canvas } of thumbs) if (!picture.of_image) paint(canvas, picture);
moveSeam();
setRange(whole.low, whole.high);
