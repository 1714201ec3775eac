"use strict";
(() => {
  document.documentElement.classList.add("chosen-by-script");
  const page = JSON.parse(document.getElementById("page").textContent);
  const state = {};
  const oneAtATime = new Set(["run", "study", "split", "edit", "map"]);
  const figures = new Map(Object.entries(page.figures).map(([name, figure]) => [name, { ...figure, rows: decoded(figure.rows) }]));
  const tables = [...document.querySelectorAll("table[data-figure]")];
  let latest = 0;

  function decoded(columns) {
    const names = Object.keys(columns);
    const values = names.map((name) => {
      const column = columns[name];
      return Array.isArray(column) ? column : column.codes.map((code) => column.levels[code]);
    });
    return (values[0] ?? []).map((_, i) => Object.fromEntries(names.map((name, j) => [name, values[j][i]])));
  }

  const fits = (value, name) => state[name] === undefined || state[name] === "" || String(value) === state[name];

  // Choosers: each offers the values that remain after the choices before it.

  function optionsOf(chooser) {
    const before = page.choosers.slice(0, page.choosers.indexOf(chooser));
    const found = new Set();
    for (const figure of [...figures.values(), ...page.gallery.items.map((e) => ({ choosers: Object.keys(e), rows: [e] }))]) {
      if (!figure.choosers.includes(chooser)) continue;
      const earlier = before.filter((name) => figure.choosers.includes(name));
      for (const row of figure.rows) {
        if (typeof row[chooser] === "string" && earlier.every((name) => fits(row[name], name))) found.add(row[chooser]);
      }
    }
    return [...found];
  }

  function fillChoosers() {
    for (const chooser of page.choosers) {
      const select = document.getElementById(`choose-${chooser}`);
      const options = optionsOf(chooser);
      const wanted = state[chooser];
      if (wanted === undefined || (wanted !== "" && !options.includes(wanted))) {
        state[chooser] = oneAtATime.has(chooser) ? options[0] ?? "" : chooser === "size" ? options.at(-1) ?? "" : "";
      }
      const all = oneAtATime.has(chooser) ? [] : [["", "all"]];
      select.replaceChildren(...[...all, ...options.map((value) => [value, value])].map(([value, text]) => new Option(text, value)));
      select.value = state[chooser];
      select.parentElement.hidden = options.length < 2;
    }
    document.querySelector("form.choosers").hidden = !page.choosers.some((name) => optionsOf(name).length > 1);
  }

  // Figures

  function specOf(figure, rows, width) {
    const spec = structuredClone(figure.spec);
    spec.datasets = { rows };
    const panels = figure.panels ? new Set(rows.map((row) => row[figure.panels])).size : 0;
    if (panels) {
      const lines = Math.ceil(panels / Math.max(1, Math.floor(width / 310)));
      spec.columns = Math.ceil(panels / lines);
      spec.spec.width = Math.max(60, Math.floor(width / spec.columns) - 60);
    } else {
      spec.width = Math.max(60, Math.min(640, width - 120));
    }
    return spec;
  }

  async function draw(name, figure, turn) {
    const place = document.querySelector(`[data-chart="${name}"]`);
    if (!place) return;
    const rows = figure.rows.filter((row) => figure.choosers.every((chooser) => fits(row[chooser], chooser)));
    if (!rows.length) {
      place.textContent = "There is nothing to show for this choice.";
      return;
    }
    const width = place.clientWidth;
    const options = {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, config: page.config,
      tooltip: { disableDefaultStyle: true },
      logLevel: 1, // show errors only: a choice may leave one kind of mark without rows
    };
    const spec = specOf(figure, rows, width);
    const inner = spec.columns ? spec.spec : spec;
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const hidden = document.createElement("div");
      hidden.style.cssText = "position:absolute;visibility:hidden";
      place.append(hidden);
      const result = await window.vegaEmbed(hidden, spec, options);
      const drawn = hidden.querySelector("svg").getBoundingClientRect().width;
      const over = (drawn - width) / (spec.columns ?? 1);
      const isWideEnough = spec.columns ? over > -12 : true;
      const narrower = Math.max(60, Math.floor(inner.width - over - 1));
      if (turn !== latest || (over <= 0 && isWideEnough) || attempt === 2 || narrower === inner.width) {
        if (turn === latest) {
          figure.view?.finalize();
          figure.view = result;
          hidden.removeAttribute("style");
          hidden.querySelector("svg").setAttribute("aria-hidden", "true");
          place.replaceChildren(hidden);
        } else {
          result.finalize();
          hidden.remove();
        }
        return;
      }
      inner.width = narrower;
      result.finalize();
      hidden.remove();
    }
  }

  function inWords(choosers) {
    const chosen = choosers.filter((name) => state[name] && document.getElementById(`choose-${name}`).options.length > 1);
    return chosen.map((name) => (name === "size" ? `size ${state[name]}` : state[name])).join(" · ");
  }

  function choosersOf(name) {
    const table = tables.find((one) => one.dataset.figure === name);
    const row = table?.querySelector("tbody tr");
    return page.choosers.filter((chooser) => (row ? chooser in row.dataset : figures.get(name)?.choosers.includes(chooser)));
  }

  function filterTables() {
    for (const table of tables) {
      let left = 0;
      for (const row of table.querySelectorAll("tbody tr")) {
        row.hidden = !page.choosers.every((name) => !(name in row.dataset) || fits(row.dataset[name], name));
        left += row.hidden ? 0 : 1;
      }
      table.parentElement.nextElementSibling.hidden = left > 0;
    }
    for (const place of document.querySelectorAll("[data-now]")) {
      const words = inWords(choosersOf(place.dataset.now));
      place.textContent = words && `· ${words}`;
    }
  }

  // Commands

  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

  function command(name, choice, choosers) {
    const runs = choosers.includes("run") && choice.run ? [choice.run] : page.runs;
    const flags = choosers.filter((c) => c !== "run" && choice[c]).flatMap((c) => [`--${c}`, choice[c]]);
    const scores = name === "memorization" && page.memorization ? ["--memorization", page.memorization] : [];
    return ["spurmem", "figure", name, ...runs, ...flags, ...scores].map(quoted).join(" ");
  }

  function writeCommands(item) {
    for (const place of document.querySelectorAll("[data-command]")) {
      const name = place.dataset.command;
      if (name !== "gallery") place.textContent = command(name, state, choosersOf(name));
      else if (item) {
        const choosers = ["run", "study", "edit", "criterion", "size", "group"];
        place.textContent = command(`${item.noun}s`, { ...item, group: state.group }, choosers);
      }
    }
  }

  // Gallery

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  function textOf(sample, key, pieces) {
    const made = element("div", "text");
    made.title = sample.path;
    made.dataset.sample = key;
    for (const part of pieces ?? sample.text.map((text) => [[text, null]])) {
      const line = element("p");
      for (const [text, change] of part) {
        if (change === null) line.append(text);
        else {
          const word = element("mark", change < 0 ? "lower" : "higher", text);
          word.title = `margin change because of this word: ${change}`;
          line.append(word);
        }
      }
      made.append(line);
    }
    return made;
  }

  function imageOf(key, alt, pieces) {
    const sample = page.gallery.samples[key];
    if (sample.text.length) return textOf(sample, key, pieces);
    const image = element("img");
    if (sample.image) image.src = sample.image;
    image.alt = alt;
    image.title = sample.path;
    image.dataset.sample = key;
    return image;
  }

  function imageList(item, images, label) {
    const list = element("ul", "images");
    for (const one of images.filter((shown) => fits(shown.group, "group"))) {
      const line = element("li");
      const image = imageOf(one.sample, `${one.group}: ${label(one)}`, one.pieces);
      const isMinority = item.minority.includes(one.group);
      line.append(image, element("span", isMinority ? "group minority" : "group", isMinority ? `${one.group} *` : one.group));
      line.append(element("span", "label", label(one)));
      list.append(line);
    }
    return list;
  }

  function side(kind, heading, lines, list) {
    const made = element("div", `side ${kind}`);
    made.append(element("h4", "", heading), ...lines.map((line) => element("p", "", line)));
    made.append(list.children.length ? list : element("p", "", "None of the chosen group."));
    return made;
  }

  function groupSide(group) {
    const made = element("div", group.minority ? "side minority" : "side");
    const list = element("ul", "images");
    for (const one of group.images) {
      const line = element("li");
      line.append(imageOf(one.sample, one.label ? `${group.name}: ${one.label}` : group.name));
      if (one.label) line.append(element("span", "label", one.label));
      list.append(line);
    }
    made.append(element("h4", "", group.minority ? `${group.name} *` : group.name), element("p", "", group.counts));
    if (group.words) made.append(element("p", "words", `Words: ${group.words}`));
    if (group.images.length) made.append(list);
    return made;
  }

  function showGroups() {
    const place = document.getElementById("group-images");
    if (!place) return;
    const found = page.gallery.groups.find((one) => one.runs.some((run) => fits(run, "run")));
    document.getElementById("groups-caption").textContent = found ? found.caption : `No ${page.noun}s of this run.`;
    place.replaceChildren(...(found ? found.groups : []).filter((group) => fits(group.name, "group")).map(groupSide));
  }

  const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

  function total(counts) {
    return Object.entries(counts).reduce((n, [group, more]) => n + (fits(group, "group") ? more : 0), 0);
  }

  function counted(which) {
    return `${total(which.changed)} of ${total(which.measured)} measured ${page.noun}s${state.group ? ` of ${state.group}` : ""} have a changed prediction`;
  }

  function showGallery() {
    const place = document.getElementById("changed");
    const item = page.gallery.items.find((one) => ["run", "study", "edit", "criterion", "size"].every((name) => fits(one[name], name)));
    if (!place) return undefined;
    const form = document.querySelector("form.channel");
    document.getElementById("top-activating").replaceChildren();
    form.hidden = true;
    if (!item) {
      document.getElementById("item").textContent = `No ${page.noun}s of this choice.`;
      place.replaceChildren();
      return undefined;
    }
    const { selected, control } = item;
    document.getElementById("item").textContent =
      `${item.edit} on ${selected.units.length} ${item.unit}${selected.units.length === 1 ? "" : "s"} ` +
      `selected by ${item.criterion}: among the sets chosen above, this one changes the most minority predictions. * minority group`;
    const predictions = (one) => `${one.before} → ${one.after}`;
    const more = control ? [`On the null set's samples: ${item.changed_on_control_samples} of ${sum(control.measured)}, all groups together.`] : [];
    const sides = [side("selected", `Selected: ${selected.units.join(", ")}`, [counted(selected), ...more], imageList(item, selected.images, predictions))];
    if (control) sides.push(side("control", `Null set: ${control.units.join(", ")}`, [counted(control)], imageList(item, control.images, predictions)));
    place.replaceChildren(...sides);
    if (Object.keys(item.top_activating).length) {
      form.hidden = false;
      const select = document.getElementById("choose-channel");
      const kept = selected.units.includes(select.value) ? select.value : selected.units[0];
      select.replaceChildren(...selected.units.map((unit) => new Option(unit, unit)));
      select.value = kept;
      showTopActivating(item);
      select.onchange = () => showTopActivating(item);
    }
    return item;
  }

  function showTopActivating(item) {
    const unit = document.getElementById("choose-channel").value;
    const ofControl = item.control?.units[item.selected.units.indexOf(unit)];
    const label = (one) => one.activation.toFixed(2);
    const sides = [["selected", "Selected", unit], ["control", "Null set", ofControl]]
      .filter(([, , name]) => name && item.top_activating[name])
      .map(([kind, title, name]) => {
        const images = item.top_activating[name];
        const line = `The ${images.length} of ${item.n_searched} training ${page.noun}s with the largest activation${state.group ? `; only those of ${state.group} are shown` : ""}`;
        return side(kind, `${title}: ${name}`, [line], imageList(item, images, label));
      });
    document.getElementById("top-activating").replaceChildren(...sides);
  }

  async function show() {
    const turn = (latest += 1);
    delete document.documentElement.dataset.drawn;
    fillChoosers();
    filterTables();
    showGroups();
    writeCommands(showGallery());
    for (const [name, figure] of figures) {
      if (turn !== latest) return;
      await draw(name, figure, turn);
    }
    if (turn === latest) document.documentElement.dataset.drawn = String(turn);
  }

  for (const chooser of page.choosers) {
    document.getElementById(`choose-${chooser}`).addEventListener("change", (event) => {
      state[chooser] = event.target.value;
      show();
    });
  }
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  let width = document.documentElement.clientWidth;
  let waiting;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(show, 200);
  });
  show();
})();
