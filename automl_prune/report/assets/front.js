// The front: which figure is shown, which model is selected, and the selected model's card.
"use strict";

(() => {
  const front = document.getElementById("front-figures");
  if (!front) return;
  const { figures, models, shared } = JSON.parse(front.textContent);
  const place = document.getElementById("figure-front");
  const card = document.getElementById("card");
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
  let selected = shared.chosen;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const command = ([purpose, line]) =>
    element("div", { className: "command" },
      element("h4", { textContent: purpose }),
      element("button", { type: "button", className: "copy", textContent: "copy", ariaLabel: `Copy: ${purpose}` }),
      element("pre", { tabIndex: 0 }, element("code", { textContent: line })));

  function widths({ kept, criteria }) {
    const rows = shared.groups.map(([name, dense], index) => {
      const share = (100 * kept[index]) / dense;
      const bar = element("td", { className: "bar" });
      bar.style.setProperty("--share", `${share}%`);
      const criterion = Array.isArray(criteria) ? criteria[index] : criteria;
      return element("tr", {},
        element("th", { scope: "row", textContent: name }), bar,
        element("td", { className: "number", textContent: `${kept[index]} of ${dense}` }),
        element("td", { textContent: criterion < 0 ? "all kept" : shared.criteria[criterion] }));
    });
    const heads = ["group", "", "channels kept", "criterion"];
    const head = element("tr", {}, ...heads.map((textContent) => element("th", { scope: "col", textContent })));
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
    return element("details", {},
      element("summary", { textContent: `Kept widths of ${rows.length} groups` }),
      element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Kept widths" }, table));
  }

  function fill(trial) {
    const model = models[trial];
    const facts = model.facts.flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: value })]);
    const commands = model.commands ?? (model.exportable ? [["Export this model", shared.export + trial]] : []);
    const notes = model.note ? [element("p", { className: "soft", textContent: model.note })] : [];
    card.replaceChildren(
      element("h3", { textContent: `Trial ${trial}` }),
      element("p", { className: "soft", textContent: model.about }),
      element("dl", {}, ...facts), ...notes, ...commands.map(command), widths(model));
  }

  const points = (traces) =>
    traces.flatMap((trace) => (trace.customdata ?? []).map((trial, i) => [trial, trace.x[i], trace.y[i]]));

  // The last trace is a ring around the selected model, wherever the shown figure has it.
  function ring(traces) {
    const at = points(traces).find(([trial]) => trial === selected);
    return { x: at ? [at[1]] : [], y: at ? [at[2]] : [] };
  }

  function show(trial) {
    if (!models[trial]) return;
    selected = Number(trial);
    fill(selected);
    const { x, y } = ring(place.data);
    Plotly.restyle(place, { x: [x], y: [y] }, [place.data.length - 1]);
  }

  async function view() {
    const key = `${chosen("stage")}/${chosen("cost")}`;
    const figure = structuredClone(figures[key].figure);
    Object.assign(figure.data.at(-1), ring(figure.data));
    await draw(place, figure);
    place.setAttribute("aria-label", figures[key].caption);
    document.getElementById("front-caption").textContent = figures[key].caption;
  }

  function step(key) {
    const order = points(place.data).sort((a, b) => a[1] - b[1] || a[0] - b[0]).map(([trial]) => trial);
    const now = order.indexOf(selected);
    const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: order.length - 1 }[key];
    show(order[Math.max(0, Math.min(order.length - 1, next))]);
  }

  function open(trial) {
    show(trial);
    card.focus();
    card.scrollIntoView({ block: "nearest" });
  }

  place.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open(selected);
    else if (["ArrowRight", "ArrowLeft", "Home", "End"].includes(event.key)) step(event.key);
    else return;
    event.preventDefault();
  });
  card.addEventListener("keydown", (event) => event.key === "Escape" && place.focus());
  document.addEventListener("change", (event) => event.target.matches(".switch input") && view());
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.opens");
    if (button) open(button.dataset.trial);
  });

  if (models[selected]) fill(selected);
  view().then(() => {
    place.on("plotly_click", ({ points: [point] }) => point.customdata !== undefined && show(point.customdata));
  });
})();
