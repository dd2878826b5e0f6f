// Classes beside the folders that people sorted the images into.
"use strict";

{
  const { h } = UIC;
  const MOST_CLASSES = 300;
  const MOST_FOLDERS = 40;

  UIC.views.folders = {
    title: () => "Folders",
    render: (main) => {
      const { folderNames, folderOf } = UIC.store;
      if (!folderOf) {
        main.append(h("p", {}, "The images do not lie in folders of their own."));
        return;
      }
      const totals = new Map();
      for (const folder of folderOf) totals.set(folder, (totals.get(folder) ?? 0) + 1);
      const folders = [...totals].sort((a, b) => b[1] - a[1]).slice(0, MOST_FOLDERS).map(([f]) => f);
      folders.sort((a, b) => a - b);
      const rank = new Map(folders.map((f, k) => [f, k]));
      const top = (c) => rank.get(UIC.foldersOf(c)[0]?.[0]) ?? Infinity;
      const classes = UIC.state.ids
        .filter((c) => UIC.state.members.get(c).length && !UIC.state.hidden.has(c))
        .sort((a, b) => top(a) - top(b) || UIC.numbersOf(b).size - UIC.numbersOf(a).size)
        .slice(0, MOST_CLASSES);
      const row = (c) => {
        const counts = new Map(UIC.foldersOf(c));
        const total = UIC.state.members.get(c).length;
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, h("a", { href: `#/class/${c}` }, UIC.nameOf(c))),
          folders.map((f) => {
            const n = counts.get(f) ?? 0;
            const cell = h("td", { title: `${UIC.nameOf(c)}, ${folderNames[f]}: ${n}` }, n ? UIC.count(n) : "");
            cell.style.setProperty("--share", (n / total).toFixed(3));
            return cell;
          }),
        );
      };
      const all = UIC.state.ids.length;
      main.append(
        h("p", { class: "quiet" }, "Images of each class in each folder; the stronger the colour, the larger the folder's share of the class. The folders played no part in making the classes."),
        h(
          "div",
          { class: "scroll", tabindex: 0, role: "region", "aria-label": "Classes and folders" },
          h(
            "table",
            { class: "confusion" },
            h("thead", {}, h("tr", {}, h("td"), folders.map((f) => h("th", { scope: "col" }, h("span", {}, folderNames[f]))))),
            h("tbody", {}, classes.map(row)),
          ),
        ),
        all > classes.length || folderNames.length > folders.length
          ? h("p", { class: "quiet" }, `${classes.length} of ${all} classes, ${folders.length} of ${folderNames.length} folders`)
          : "",
      );
    },
  };
}
