"use strict";
// Sorting, filters, open rows and comparisons, all kept in the address. Numbers come from the page and from pairs-*.js: none is
// computed here. Without this file the page is a plain table for each ranking.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const made = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  // Sorting: the first click on a column puts the best first, rows without a value are always last

  const tables = all("table.sortable").map((table) => ({ table, lines: all("tbody > tr.line", table) }));
  const sort = ({ table, lines }, key, worstFirst) => {
    const heads = all("thead th[data-key]", table);
    const head = heads.find((th) => th.dataset.key === key);
    heads.forEach((th) => th.removeAttribute("aria-sort"));
    let sorted = lines;
    if (head) {
      const ascending = (head.dataset.best === "low") !== worstFirst;
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[head.cellIndex].dataset.v;
      const order = (a, b) => (key === "rule" ? a.localeCompare(b) : a - b);
      sorted = lines.toSorted((x, y) => {
        const [a, b] = [value(x), value(y)];
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        return ascending ? order(a, b) : order(b, a);
      });
    }
    const shown = all("tbody > tr.line", table);
    if (sorted.some((row, place) => row !== shown[place])) sorted.forEach((row) => row.parentElement.append(row, row.nextElementSibling));
  };
  let onSort = (one, key) => {
    one.worst = one.key === key && !one.worst;
    sort(one, (one.key = key), one.worst);
  };
  tables.forEach((one) =>
    all("thead th[data-key]", one.table).forEach((head) => {
      const name = head.querySelector(".sort");
      name.replaceWith(made("button", { type: "button", className: name.className }, ...name.childNodes));
      head.addEventListener("click", (event) => event.target.closest("a") || onSort(one, head.dataset.key));
    }),
  );

  const form = document.getElementById("filters");
  if (!form) return;

  // The state: what the address says, what the controls show

  const labels = [...new Set(tables.flatMap(({ lines }) => lines.map((row) => row.dataset.label)))];
  const fields = form.elements;
  const compared = document.querySelector("#comparison form").elements;
  const firstRanking = document.querySelector("section.ranking").dataset.ranking;
  const state = { ranking: firstRanking, q: "", family: "", task: "", without: [], sort: "", open: new Set(), compare: ["", ""] };

  const pairIn = (text) => {
    const first = labels.find((label) => text.startsWith(`${label},`) && labels.includes(text.slice(label.length + 1)));
    return first === undefined ? ["", ""] : [first, text.slice(first.length + 1)];
  };
  const read = () => {
    const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : location.search);
    const known = all("section.ranking").some((one) => one.dataset.ranking === given.get("ranking"));
    state.ranking = known ? given.get("ranking") : firstRanking;
    for (const name of ["q", "family", "task", "sort"]) state[name] = given.get(name) ?? "";
    state.without = given.getAll("without");
    state.open = new Set(given.getAll("open"));
    state.compare = pairIn(given.get("compare") ?? "");
  };
  const write = () => {
    const kept = new URLSearchParams();
    if (state.ranking !== firstRanking || location.search) kept.set("ranking", state.ranking);
    for (const name of ["q", "family", "task", "sort"]) if (state[name]) kept.set(name, state[name]);
    state.without.forEach((field) => kept.append("without", field));
    state.open.forEach((label) => kept.append("open", label));
    if (state.compare.every(Boolean)) kept.set("compare", state.compare.join(","));
    if (`${kept}` || location.hash.includes("=")) history.replaceState(null, "", `#${kept}`.replaceAll("%2C", ","));
  };

  const isKept = (row) =>
    (!state.family || row.dataset.family === state.family) &&
    state.without.every((field) => row.dataset.without.split(" ").includes(field)) &&
    row.cells[0].textContent.toLowerCase().includes(state.q.trim().toLowerCase());
  const show = () => {
    all("[data-ranking]").forEach((one) => (one.hidden = one.dataset.ranking !== state.ranking));
    all("input[name=ranking]", form).forEach((input) => (input.checked = input.value === state.ranking));
    all("input[name=without]", form).forEach((input) => (input.checked = state.without.includes(input.value)));
    for (const name of ["q", "family", "task"]) if (fields[name]) fields[name].value = state[name];
    for (const one of tables) {
      sort(one, state.sort.replace(/^-/, ""), state.sort.startsWith("-"));
      one.lines.forEach((row) => {
        row.hidden = row.nextElementSibling.hidden = !isKept(row);
        row.querySelector("details").open = state.open.has(row.dataset.label);
      });
      all("[data-task]", one.table).forEach((cell) => (cell.hidden = state.task !== "" && cell.dataset.task !== state.task));
    }
    const { lines } = tables.find(({ table }) => table.closest("section.ranking").dataset.ranking === state.ranking);
    const left = lines.filter((row) => !row.hidden).length;
    const text = left ? `${left} of ${lines.length} rules` : "No rule has these properties.";
    const count = document.getElementById("count");
    if (count.value !== text) count.value = text;
    showComparison();
  };
  const change = (changes) => {
    Object.assign(state, changes);
    write();
    show();
  };

  onSort = (one, key) => change({ sort: state.sort === key ? `-${key}` : key });
  form.addEventListener("input", () =>
    change({
      ranking: form.querySelector("input[name=ranking]:checked")?.value ?? firstRanking,
      q: fields.q.value,
      family: fields.family.value,
      task: fields.task?.value ?? "",
      without: all("input[name=without]:checked", form).map((input) => input.value),
    }),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change({ q: "", family: "", task: "", without: [], sort: "" });
  });
  tables.forEach(({ lines }) =>
    lines.forEach((row) =>
      row.querySelector("details").addEventListener("toggle", (event) => {
        if (event.target.open === state.open.has(row.dataset.label)) return;
        state.open[event.target.open ? "add" : "delete"](row.dataset.label);
        write();
        show();
      }),
    ),
  );

  // The comparison of two rules: their differences are in a file of each ranking, loaded when it is needed

  const flipped = { "▲": "▼", "▼": "▲" };
  const words = { "▲": "better", "▼": "worse", "≈": "equal" };
  const number = (value, digits = 1) => {
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
  };
  const oriented = ([value, low, high, sign, ...more], turned) =>
    turned
      ? [-value, high === null ? null : -high, low === null ? null : -low, flipped[sign] ?? sign, ...more.map((x) => (Array.isArray(x) ? x.map((d) => -d) : x))]
      : [value, low, high, sign, ...more];
  const difference = ([value, low, high, sign]) => {
    const plain = (end) => number(end).replace("+", "");
    const parts = [number(value), " "];
    if (words[sign]) parts.push(made("span", { className: `sign ${words[sign]}`, role: "img", ariaLabel: words[sign] }, sign));
    if (low !== null) parts.push(made("small", {}, ` [${plain(low)}, ${plain(high)}]`));
    return parts;
  };
  const drawing = ([value, low, high, , seeds], reach) => {
    const at = (x) => (90 + (80 * x) / reach).toFixed(1);
    const svg = made("span");
    const span = low === null ? "" : `<path d="M${at(low)} 8H${at(high)}"/>`;
    const dots = seeds.map((d) => `M${at(d)} 14h0`).join("");
    svg.innerHTML = `<svg class="strip" width="180" height="18" aria-hidden="true"><path class="axis" d="M90 1v16"/>${span}<circle cx="${at(value)}" cy="8" r="3.5"/><path class="seeds" d="${dots}"/></svg>`;
    return svg;
  };
  const inTable = (label, task) => {
    const one = tables.find(({ table }) => table.closest("section.ranking").dataset.ranking === state.ranking);
    const head = all("thead th[data-key]", one.table).find((th) => th.dataset.key === `task.${task}`);
    const cell = one.lines.find((row) => row.dataset.label === label)?.cells[head.cellIndex].cloneNode(true);
    all("sup, svg, small", cell).forEach((part) => part.remove());
    return cell.textContent.trim();
  };
  const comparison = (data, first, second) => {
    const places = [first, second].map((label) => data.lines.indexOf(label));
    const turned = places[0] > places[1];
    const [i, j] = turned ? places.toReversed() : places;
    const [across, ...onTasks] = data.pairs[i][j - i - 1].map((one) => one && oriented(one, turned));
    const reach = Math.max(1e-9, ...onTasks.flatMap((one) => (one ? [one[0], one[1], one[2], ...one[4]].map((x) => Math.abs(x ?? 0)) : [])));
    const lead = across
      ? [made("b", {}, first), " minus ", made("b", {}, second), ": ", ...difference(across), ` points; p = ${across[4]} (smallest possible ${across[5]}), two-sided paired sign-flip test of ${across[6]} pairs of task and seed, not corrected for the choice of the two rules`.replace("= <", "<")]
      : ["One of the two is not ranked, or there is no backprop, so there is no difference across the tasks."];
    const heads = ["task", first, second, "difference, %", "difference of each seed"].map((text) => made("th", { scope: "col" }, text));
    const rows = onTasks.map((one, k) => {
      const cells = [inTable(first, data.tasks[k]), inTable(second, data.tasks[k])].map((text) => made("td", { className: "number" }, text));
      const found = one ? [made("td", { className: "number" }, ...difference(one)), made("td", { title: one[4].map((d) => number(d)).join(", ") }, drawing(one, reach))] : [made("td", { colSpan: 2 }, "no common seed")];
      return made("tr", {}, made("th", { scope: "row" }, data.tasks[k]), ...cells, ...found);
    });
    const table = made("table", {}, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...rows));
    return [made("p", {}, ...lead, across ? "." : ""), made("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `${first} and ${second}` }, table)];
  };
  const loading = {};
  const pairs = (ranking) =>
    (loading[ranking] ??= new Promise((done, failed) => {
      const script = made("script", { src: `pairs-${encodeURIComponent(ranking)}.js`, onerror: failed });
      script.onload = () => done(window.rulezooPairs[ranking]);
      document.head.append(script);
    }));
  const showComparison = async () => {
    const [first, second] = state.compare;
    const place = document.getElementById("differences");
    compared.first.value = first;
    compared.second.value = second;
    if (!first || !second || first === second) return place.replaceChildren();
    const data = await pairs(state.ranking);
    if (state.compare[0] !== first || state.compare[1] !== second) return;
    const has = [first, second].every((label) => data.lines.includes(label));
    place.replaceChildren(...(has ? comparison(data, first, second) : ["No comparison of these two is stored for these settings."]));
  };
  for (const select of [compared.first, compared.second]) {
    select.append(...labels.map((label) => made("option", {}, label)));
    select.addEventListener("input", () => change({ compare: [compared.first.value, compared.second.value] }));
  }

  form.hidden = document.getElementById("comparison").hidden = false;
  addEventListener("hashchange", () => location.hash.includes("=") && (read(), show()));
  read();
  const isFiltered = state.q || state.family || state.task || state.without.length;
  if (matchMedia("(max-width: 64rem)").matches && !isFiltered) form.querySelector("details.more").open = false;
  show();
  if (state.compare.every(Boolean)) document.getElementById("comparison").scrollIntoView();
})();
