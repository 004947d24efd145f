// Every page: draws the figures, sorts tables, copies commands.
"use strict";

const plotOptions = {
  responsive: true,
  displaylogo: false,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

function draw(place, figure) {
  if (matchMedia("(max-width: 40rem)").matches) {
    if (figure.layout.legend) figure.layout.legend.font = { size: 11 };
    figure.layout.margin = { ...figure.layout.margin, l: 45, r: 8 };
  }
  return Plotly.react(place, figure.data, figure.layout, plotOptions);
}

// A figure is drawn when it comes near the window, so that a page of many opens at once.
const waiting = new Map();
function drawWaiting(place) {
  const source = waiting.get(place);
  waiting.delete(place);
  near.unobserve(place);
  return draw(place, JSON.parse(source.textContent));
}
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) drawWaiting(target);
}, { rootMargin: "100% 0%" });
for (const source of document.querySelectorAll("script[data-figure]")) {
  const place = document.getElementById(source.dataset.figure);
  waiting.set(place, source);
  near.observe(place);
}

// Numbers sort as numbers, what is absent comes last.
function sortBy(head) {
  const body = head.closest("table").tBodies[0];
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
  const rows = [...body.rows].map((row) => [key(row), row]);
  const present = rows.filter(([value]) => value !== "").sort(([a], [b]) => direction * compare(a, b));
  body.append(...[...present, ...rows.filter(([value]) => value === "")].map(([, row]) => row));
}

// Clipboard access is refused to files in some browsers; selecting the text works everywhere.
async function copy(button) {
  const code = button.parentNode.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "selected";
  }
  setTimeout(() => (button.textContent = "copy"), 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.matches("table.sortable th button")) sortBy(button.closest("th"));
  if (button.matches(".copy")) copy(button);
});

// Paper is narrower than most windows, and drawings do not shrink by themselves; the front fits below the answer.
const heights = new Map();
addEventListener("beforeprint", () => {
  for (const place of [...waiting.keys()]) drawWaiting(place);
  for (const plot of document.querySelectorAll(".js-plotly-plot")) {
    heights.set(plot, plot.layout.height);
    Plotly.relayout(plot, { width: 700, height: plot.id === "figure-front" ? 345 : plot.layout.height });
  }
});
addEventListener("afterprint", () => {
  for (const [plot, height] of heights) Plotly.relayout(plot, { width: null, height, autosize: true });
});
