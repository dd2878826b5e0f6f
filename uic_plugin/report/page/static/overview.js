// All classes as cards.
"use strict";

{
  const { h } = UIC;
  const SORTS = {
    size: ["Size", (n) => -n.size],
    confidence: ["Confidence", (n) => -n.confidence],
    entropy: ["Sharpness", (n) => n.entropy],
    stable: ["Stability", (n) => -n.stable],
    unsure: ["Least confident", (n) => n.confidence],
    number: ["Number", (n, c) => c],
    name: ["Name", null],
  };
  const view = { sort: "size", text: "", hidden: false };
  UIC.overviewState = view;

  const available = () =>
    Object.entries(SORTS).filter(([key]) => {
      if (key === "unsure") return UIC.store.confidence;
      if (["confidence", "entropy"].includes(key)) return UIC.store[key];
      if (key === "stable") return UIC.store.agreement || UIC.store.history;
      return true;
    });

  UIC.shownClasses = () => {
    const text = view.text.trim().toLowerCase();
    const matches = (c) => {
      if (UIC.state.hidden.has(c) && !view.hidden) return false;
      if (!text) return true;
      if (UIC.isCalled(c, text)) return true;
      const members = UIC.state.members.get(c);
      if (UIC.store.folderOf) {
        const top = UIC.foldersOf(c)[0];
        if (top && UIC.store.folderNames[top[0]].toLowerCase().includes(text)) return true;
      }
      return text.length > 2 && (UIC.store.paths ?? []).length
        ? members.some((i) => UIC.store.paths[i].toLowerCase().includes(text))
        : false;
    };
    const ids = UIC.state.ids.filter(matches);
    if (view.sort === "name") {
      const named = (c) => (UIC.state.names.has(c) ? 0 : 1);
      return ids.sort(
        (a, b) =>
          named(a) - named(b) ||
          UIC.nameOf(a).localeCompare(UIC.nameOf(b), "en", { numeric: true }),
      );
    }
    const value = SORTS[view.sort][1];
    const of = new Map(ids.map((c) => [c, value(UIC.numbersOf(c), c)]));
    const number = (c) => (Number.isNaN(of.get(c)) ? Infinity : of.get(c));
    return ids.sort((a, b) => (number(a) === number(b) ? a - b : number(a) - number(b)));
  };

  const card = (c) => {
    const numbers = UIC.numbersOf(c);
    const covers = UIC.ordered(c, "typical").slice(0, 6);
    const mosaic = h("div", { class: `mosaic n${covers.length}` }, covers.map((i) => UIC.thumb(i)));
    const dot = h("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = UIC.colourOf(c);
    const said = [
      UIC.nameOf(c),
      `${UIC.count(numbers.size)} images`,
      UIC.store.confidence && `mean confidence ${UIC.format(numbers.confidence)}`,
      UIC.state.hidden.has(c) && "hidden",
    ];
    const link = h(
      "a",
      {
        class: "card",
        href: `#/class/${c}`,
        "data-class": c,
        "aria-label": said.filter(Boolean).join(", "),
      },
      mosaic,
      h(
        "div",
        { class: "card-text" },
        h("div", { class: "card-name" }, dot, h("span", { class: "grow clip" }, UIC.nameOf(c)), h("span", { class: "quiet" }, UIC.count(numbers.size))),
        UIC.store.confidence &&
          UIC.bar("sure", numbers.confidence, UIC.percent(numbers.confidence), "mean confidence"),
        UIC.store.entropy &&
          UIC.bar(
            "sharp",
            1 - numbers.entropy / maxEntropy(),
            UIC.format(numbers.entropy),
            "mean entropy in nats; lower is sharper",
          ),
        Number.isFinite(numbers.stable)
          ? UIC.bar(
              "stable",
              numbers.stable,
              UIC.percent(numbers.stable),
              UIC.store.agreement ? "mean agreement of heads" : "share of images that stayed",
            )
          : null,
      ),
    );
    const tick = h("button", {
      type: "button",
      class: "tick",
      role: "checkbox",
      "aria-label": `Select ${UIC.nameOf(c)}`,
      "aria-checked": "false",
      "data-tick": c,
    });
    const element = h("div", { class: "card-frame", role: "listitem" }, link, tick);
    UIC.markCard(element);
    return element;
  };

  const maxEntropy = () => Math.log(Math.max(2, UIC.state.ids.length));

  UIC.markCard = (frame) => {
    const tick = frame.querySelector("[data-tick]");
    const c = Number(tick.dataset.tick);
    const selected = UIC.selection.classes.has(c);
    frame.classList.toggle("selected", selected);
    frame.classList.toggle("hidden-class", UIC.state.hidden.has(c));
    tick.setAttribute("aria-checked", String(selected));
  };

  // Sizes of all classes, largest first, as one picture.
  const sizes = (ids) => {
    if (!ids.length) return h("p", { class: "quiet" }, "No class fits the filter.");
    const values = ids.map((c) => UIC.numbersOf(c).size).sort((a, b) => b - a);
    const most = values[0];
    const points = values.map((v, k) => {
      const x = ((k + 0.5) / values.length) * 600;
      return `${x.toFixed(1)},${(44 - (v / most) * 40).toFixed(1)}`;
    });
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 600 46");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "sizes");
    svg.setAttribute("role", "img");
    svg.setAttribute(
      "aria-label",
      `Class sizes from ${values.at(-1)} to ${values[0]} images`,
    );
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const [first, last] = [points[0], points.at(-1)].map((point) => point.split(",")[1]);
    line.setAttribute("d", `M0,46 L0,${first} L${points.join(" L")} L600,${last} L600,46 Z`);
    svg.append(line);
    return h(
      "figure",
      { class: "sizes-figure" },
      svg,
      h(
        "figcaption",
        { class: "quiet" },
        `Class sizes, ${UIC.count(values[0])} to ${UIC.count(values.at(-1))} images`,
      ),
    );
  };

  UIC.views.overview = {
    title: () => "Classes",
    render: (main) => {
      const cards = h("div", { class: "cards", role: "list", "aria-label": "Classes" });
      const found = h("span", { class: "quiet", "aria-live": "polite" });
      const figure = h("div", { class: "figure-slot" });
      const fill = () => {
        const ids = UIC.shownClasses();
        cards.replaceChildren();
        cards.parentElement?.querySelectorAll(".sentinel").forEach((s) => s.remove());
        found.textContent = `${UIC.count(ids.length)} of ${UIC.count(UIC.state.ids.length)} classes`;
        figure.replaceChildren(sizes(ids));
        UIC.grow(cards, ids.length, (k) => card(ids[k]), 48);
      };
      const filter = h("input", {
        id: "filter",
        type: "search",
        placeholder: "Filter by name, number or file",
        "aria-label": "Filter classes",
        value: view.text,
        oninput: () => {
          view.text = filter.value;
          fill();
        },
      });
      const sort = h(
        "select",
        {
          id: "sort",
          "aria-label": "Sort classes by",
          onchange: () => {
            view.sort = sort.value;
            fill();
          },
        },
        available().map(([key, [text]]) =>
          h("option", { value: key, selected: key === view.sort }, text),
        ),
      );
      const hidden = h(
        "label",
        { class: "way" },
        h("input", {
          type: "checkbox",
          checked: view.hidden,
          onchange: (event) => {
            view.hidden = event.target.checked;
            fill();
          },
        }),
        "Show hidden",
      );
      main.append(
        h("div", { class: "bar-top" }, filter, h("label", { class: "way" }, "Sort by", sort), hidden, found),
        figure,
        cards,
      );
      fill();
    },
  };
}
