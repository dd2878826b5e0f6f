// One class: its images in several orders, its neighbours, folders and history.
"use strict";

{
  const { h, button } = UIC;
  const STRIP = 12;
  const ORDERS = {
    typical: "Most typical",
    borderline: "Borderline",
    uncertain: "Least certain",
    elsewhere: "Other heads disagree",
  };
  const TOLD = {
    typical: "highest confidence",
    borderline: "closest to another class",
    uncertain: "highest entropy",
    elsewhere: "least agreement of heads",
  };
  const view = { order: "typical" };

  const facts = (c) => {
    const numbers = UIC.numbersOf(c);
    const items = [["images", UIC.count(numbers.size)]];
    if (UIC.store.confidence) items.push(["confidence", UIC.format(numbers.confidence)]);
    if (UIC.store.entropy) items.push(["entropy", `${UIC.format(numbers.entropy)} nats`]);
    if (UIC.store.agreement) items.push(["agreement of heads", UIC.format(numbers.stable)]);
    const wrong = UIC.state.members.get(c).filter((i) => UIC.state.wrong.has(i)).length;
    if (wrong) items.push(["marked as wrong", UIC.count(wrong)]);
    return h("dl", { class: "facts" }, items.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
  };

  const neighbours = (c) => {
    const near = UIC.neighbours(c, 8);
    if (!near.length) return null;
    const kind = near[0].kind;
    return h(
      "section",
      { "aria-label": "Neighbouring classes" },
      h("h3", {}, "Neighbouring classes"),
      h(
        "p",
        { class: "quiet" },
        kind === "center"
          ? "by the distance of centers of features; the first is the nearest"
          : "share of this class's images that have them as second-best class",
      ),
      h(
        "div",
        { class: "chips" },
        near.map(({ id, value }) =>
          h(
            "a",
            { class: "chip", href: `#/class/${id}` },
            UIC.thumb(UIC.ordered(id, "typical")[0] ?? 0),
            h("span", { class: "clip" }, UIC.nameOf(id)),
            kind === "center" ? null : h("span", { class: "quiet" }, UIC.percent(value)),
          ),
        ),
        h("button", { type: "button", class: "chip", onclick: () => UIC.actions.mergeWith(c) }, "Merge with …"),
      ),
    );
  };

  const folders = (c) => {
    if (!UIC.store.folderOf) return null;
    const found = UIC.foldersOf(c);
    const total = UIC.state.members.get(c).length || 1;
    return h(
      "section",
      { "aria-label": "Annotated folders" },
      h("h3", {}, "Folders of its images"),
      h(
        "div",
        { class: "bars" },
        found.slice(0, 8).map(([folder, count]) =>
          UIC.bar(UIC.store.folderNames[folder], count / total, `${UIC.count(count)} · ${UIC.percent(count / total)}`, UIC.store.folderNames[folder]),
        ),
      ),
      found.length > 8 ? h("p", { class: "quiet" }, `and ${found.length - 8} more folders`) : null,
    );
  };

  const history = (c) => {
    const past = UIC.store.history;
    if (!past || !past.size[c]) return null;
    const rows = past.epochs.map((epoch, k) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, String(epoch)),
        h("td", {}, UIC.count(past.size[c][k])),
        h("td", {}, UIC.percent(past.kept[c][k])),
      ),
    );
    return h(
      "section",
      { "aria-label": "History" },
      h("h3", {}, "History"),
      h(
        "table",
        { class: "plain" },
        h("thead", {}, h("tr", {}, ["epoch", "images", "of today's"].map((t) => h("th", { scope: "col" }, t)))),
        h("tbody", {}, rows),
      ),
    );
  };

  const strips = (c) =>
    Object.keys(ORDERS).map((order) => {
      const images = UIC.ordered(c, order);
      if (!images || !images.length || (order === "typical" && images.length <= STRIP)) return null;
      return h(
        "section",
        { "aria-label": ORDERS[order] },
        h("h3", {}, ORDERS[order], h("small", {}, ` ${TOLD[order]}`)),
        UIC.strip(images.slice(0, STRIP)),
      );
    });

  const everything = (c) => {
    const slot = h("div");
    const orders = Object.keys(ORDERS).filter((o) => UIC.ordered(c, o)?.length);
    const fill = () => {
      const order = orders.includes(view.order) ? view.order : "typical";
      const images = UIC.ordered(c, order);
      slot.replaceChildren(UIC.grid(images, { "aria-label": "Images of the class" }));
    };
    const select = h(
      "select",
      {
        "aria-label": "Order of the images",
        onchange: () => {
          view.order = select.value;
          fill();
        },
      },
      orders.map((o) => h("option", { value: o, selected: o === view.order }, `${ORDERS[o]} first`)),
    );
    fill();
    const shown = UIC.state.members.get(c).length;
    const size = UIC.numbersOf(c).size;
    const text =
      shown === size
        ? `All ${UIC.count(size)} images`
        : `A sample: ${UIC.count(shown)} of its ${UIC.count(size)} images`;
    return h(
      "section",
      { "aria-label": "All images" },
      h("div", { class: "row" }, h("h3", { class: "grow" }, text), select),
      slot,
    );
  };

  UIC.views.class = {
    title: (c) => UIC.nameOf(c),
    render: (main, c) => {
      if (!UIC.state.members.has(c)) {
        const into = UIC.currentOf(c);
        main.append(
          h("p", {}, "There is no such class any more."),
          into !== c && UIC.state.members.has(into)
            ? h("a", { href: `#/class/${into}` }, `It has been merged into ${UIC.nameOf(into)}.`)
            : h("a", { href: "#/" }, "All classes"),
        );
        return;
      }
      const dot = h("span", { class: "dot large", "aria-hidden": "true" });
      dot.style.background = UIC.colourOf(c);
      const ids = UIC.shownClasses();
      const at = ids.indexOf(c);
      const step = (by, text) => {
        const next = ids[at + by];
        return next === undefined || at < 0
          ? h("span", { class: "button off", "aria-hidden": "true" }, text)
          : h("a", { class: "button", href: `#/class/${next}`, "aria-label": by < 0 ? "Previous class" : "Next class", "data-step": by }, text);
      };
      const hidden = UIC.state.hidden.has(c);
      main.append(
        h(
          "div",
          { class: "row head" },
          h("a", { class: "button", href: "#/", "aria-label": "All classes", "data-up": true }, "←"),
          dot,
          h("h2", { class: "grow clip", id: "class-name" }, UIC.nameOf(c)),
          UIC.state.names.has(c) ? h("span", { class: "quiet" }, `class ${c}`) : null,
          step(-1, "‹"),
          step(1, "›"),
        ),
        h(
          "div",
          { class: "row actions", role: "toolbar", "aria-label": "Edit this class" },
          button("Name …", () => UIC.actions.name(c)),
          button("Merge …", () => UIC.actions.mergeWith(c)),
          button("Split …", () => UIC.actions.split(c)),
          button(hidden ? "Show" : "Hide", () => UIC.actions.hide([c], !hidden)),
        ),
        facts(c),
      );
      main.append(
        ...strips(c).filter(Boolean),
        h("div", { class: "columns" }, [neighbours(c), folders(c), history(c)].filter(Boolean)),
        everything(c),
      );
    },
  };
}
