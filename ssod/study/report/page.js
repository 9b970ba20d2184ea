"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  // ------------------------------------------------------------ light and dark
  const theme = find("theme");
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const showTheme = () => {
    theme.setAttribute("aria-pressed", String(isDark()));
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Dark colours: ${isDark() ? "on" : "off"}`);
  };
  const remember = (write) => {
    try {
      if (write) localStorage.setItem("ssod-report-theme", write);
      return localStorage.getItem("ssod-report-theme");
    } catch { return null; } // a page from a file may not keep anything
  };
  const kept = remember();
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remember(document.documentElement.dataset.theme);
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();

  // ------------------------------------------------------------ sorting
  const compare = (a, b) => {
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) ? a.localeCompare(b, "en", { numeric: true }) : numbers[0] - numbers[1];
  };
  const sort = (table, header) => {
    const column = Number(header.dataset.column);
    const before = header.getAttribute("aria-sort");
    const first = header.classList.contains("number") || header.classList.contains("plot") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = before === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.cells[column].dataset.value]);
    rows.sort(([, a], [, b]) => {
      if (a === undefined || b === undefined) return Number(a === undefined) - Number(b === undefined);
      return sign * compare(a, b);
    });
    table.tBodies[0].append(...rows.map(([row]) => row));
    for (const each of table.tHead.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    find("announce").textContent = `sorted by ${header.querySelector("button").textContent}, ${order}`;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.querySelectorAll("th[data-column]")) {
      header.querySelector("button").addEventListener("click", () => sort(table, header));
    }
  }

  // ------------------------------------------------------------ values under the pointer
  const tip = find("tip");
  const hide = (chart) => {
    tip.hidden = true;
    chart.querySelector(".cursor").style.visibility = "hidden";
  };
  const point = (chart, event) => {
    const hover = JSON.parse(chart.dataset.hover);
    const box = chart.getBoundingClientRect();
    const across = ((event.clientX - box.left) * chart.viewBox.baseVal.width) / box.width;
    const at = (across - hover.left) / hover.scale;
    const all = [...new Set(hover.series.flatMap((each) => each.points.map(([x]) => x)))];
    if (!all.length) return;
    const nearest = all.reduce((a, b) => (Math.abs(b - at) < Math.abs(a - at) ? b : a));
    const lines = [make("b", `iteration ${nearest.toLocaleString("en")}`)];
    for (const each of hover.series) {
      const found = each.points.find(([x]) => x === nearest);
      if (!found) continue;
      const line = make("div");
      line.append(make("i", each.name, each.style), make("span", found[1].toFixed(hover.digits)));
      lines.push(line);
    }
    tip.replaceChildren(...lines);
    tip.hidden = false;
    const cursor = chart.querySelector(".cursor");
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, hover.left + nearest * hover.scale);
    cursor.style.visibility = "visible";
    const width = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12)}px`;
  };
  for (const chart of document.querySelectorAll(".chart")) {
    chart.addEventListener("pointermove", (event) => point(chart, event));
    chart.addEventListener("pointerdown", (event) => point(chart, event));
    chart.addEventListener("pointerleave", () => hide(chart));
  }

  // ------------------------------------------------------------ pictures
  const dialog = find("picture");
  for (const button of document.querySelectorAll(".zoom")) {
    button.addEventListener("click", () => {
      const image = button.querySelector("img");
      dialog.querySelector("img").src = image.src;
      dialog.querySelector("img").alt = image.alt;
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // ------------------------------------------------------------ configs
  const { options, runs } = JSON.parse(find("data").textContent);
  const [first, second, filter] = ["first", "second", "filter"].map(find);
  const config = (place) => new Map(runs[place].has.map((option) => options[option]));
  const compareConfigs = () => {
    const [a, b] = [config(first.selectedIndex), config(second.selectedIndex)];
    const same = first.selectedIndex === second.selectedIndex;
    const wanted = filter.value.trim().toLowerCase();
    const names = [...new Set([...a.keys(), ...b.keys()])].sort((x, y) => x.localeCompare(y, "en", { numeric: true }));
    const rows = [];
    for (const name of names) {
      if (!same && a.get(name) === b.get(name)) continue;
      if (wanted && !name.toLowerCase().includes(wanted)) continue;
      const row = make("tr");
      const header = make("th", name);
      header.scope = "row";
      row.append(header);
      for (const each of [a, b]) row.append(each.has(name) ? make("td", each.get(name)) : make("td", "not set", "none"));
      rows.push(row);
    }
    find("difference").tBodies[0].replaceChildren(...rows);
    find("difference-caption").textContent = same ? "All options of the run" : "Options in which the two runs differ";
    const what = same ? "options" : "options differ";
    find("count").textContent = a.size || b.size ? `${rows.length} ${what}` : "These runs left no config.py.";
  };
  if (runs.length) {
    second.selectedIndex = runs.length - 1;
    for (const each of [first, second]) each.addEventListener("change", compareConfigs);
    filter.addEventListener("input", compareConfigs);
    document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
    compareConfigs();
  }
})();
