"""The page's style and script, inlined by ``page.py``; nothing in them is fetched from anywhere."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b2027; --soft: #5a6470; --paper: #ffffff; --panel: #f5f6f8; --line: #d9dde3; --grid: #e6e9ed;
  --accent: #1f6fb2; --good: #00785a; --bad: #b84a00; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e7eaee; --soft: #a2abb6; --paper: #14181d; --panel: #1c2128; --line: #363d47; --grid: #2a3038;
  --accent: #6db3ec; --good: #3ec79c; --bad: #f08b4b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main, header, footer { max-width: 74rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; } footer { padding-bottom: 3rem; color: var(--soft); font-size: .875rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p { margin: .4rem 0; max-width: 75ch; } .soft, figcaption, .missing { color: var(--soft); }
.missing { font-style: italic; }
nav { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin-top: .8rem; font-size: .875rem; }
a { color: var(--accent); }
a:focus-visible, button:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
.answer { border: 1px solid var(--line); border-left: 4px solid var(--accent); border-radius: 6px;
  background: var(--panel); padding: 1rem 1.25rem; margin-top: 1rem; }
.answer .headline { font-size: 1.15rem; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem 1.5rem;
  margin: 1rem 0; }
.tiles div { border-top: 1px solid var(--line); padding-top: .4rem; }
.tiles dt { color: var(--soft); font-size: .8125rem; }
.tiles dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles dd.note { font-size: .8125rem; color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
ul.notes { margin: .5rem 0 0; padding-left: 1.2rem; font-size: .875rem; color: var(--soft); }
figure { margin: .5rem 0 1rem; } figcaption { font-size: .875rem; max-width: 85ch; }
.plot { min-height: 200px; } .wide { overflow-x: auto; } .wide .plot { min-width: 40rem; }
.scroll { overflow: auto; border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; }
.scroll.tall { max-height: 34rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { position: sticky; top: 0; background: var(--panel); white-space: nowrap; z-index: 1; }
tbody tr:last-child > * { border-bottom: 0; }
th.number, td.number { text-align: right; white-space: nowrap; } tbody th { font-weight: 600; white-space: nowrap; }
tr.chosen > * { background: color-mix(in srgb, var(--accent) 12%, transparent); }
td { white-space: nowrap; }
td.text, th.text { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
tr.faint { color: var(--soft); }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button::after { content: "\\2195"; color: var(--soft); margin-left: .3em; font-weight: 400; }
th[aria-sort=ascending] button::after { content: "\\2191"; color: var(--accent); }
th[aria-sort=descending] button::after { content: "\\2193"; color: var(--accent); }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem;
  margin: .3rem 0 1rem; overflow-x: auto; font: .8125rem/1.5 ui-monospace, monospace; }
summary { cursor: pointer; color: var(--accent); }
.js-plotly-plot :is(.xtick, .ytick, .legend, .annotation, .g-xtitle, .g-ytitle, .cbaxis, .colorbar) text {
  fill: var(--ink) !important; }
.js-plotly-plot .gridlayer path { stroke: var(--grid) !important; }
.js-plotly-plot .modebar-btn path { fill: var(--soft) !important; }
.js-plotly-plot .modebar-group { background: transparent !important; }
@media (max-width: 40rem) { main, header, footer { padding-left: .9rem; padding-right: .9rem; }
  th, td { padding: .3rem .45rem; } .tiles { grid-template-columns: 1fr 1fr; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #fff; --line: #bbb;
    --grid: #ddd; --accent: #0b4f86; --good: #00583f; --bad: #8f3a00; }
  body { font-size: 10.5pt; } nav, .modebar-container, th button::after, .noprint { display: none !important; }
  main, header, footer { max-width: none; padding: 0; } .scroll.tall { max-height: none; overflow: visible; }
  figure, tr, .answer, pre { break-inside: avoid; } h2, h3 { break-after: avoid; } thead th { position: static; } }
"""

SCRIPT = """
(() => {
  const options = { responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  for (const source of document.querySelectorAll("script[data-figure]")) {
    const figure = JSON.parse(source.textContent);
    const place = document.getElementById(source.dataset.figure);
    if (matchMedia("(max-width: 40rem)").matches && figure.layout.legend) {
      figure.layout.legend.font = { size: 11 };
      figure.layout.margin = { ...figure.layout.margin, l: 45, r: 8 };
    }
    Plotly.newPlot(place, figure.data, figure.layout, options);
  }
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
  for (const button of document.querySelectorAll("table.sortable th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [value(row, head.cellIndex), row]);
      const absent = rows.filter(([key]) => key === ""), present = rows.filter(([key]) => key !== "");
      present.sort(([a], [b]) => direction * compare(a, b));
      body.append(...[...present, ...absent].map(([, row]) => row));
    });
  }
})();
"""
