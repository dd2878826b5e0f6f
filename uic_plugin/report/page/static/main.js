// Starts the page: selection, header, views by address.
"use strict";

{
  const { h, button } = UIC;
  const main = document.getElementById("main");
  const bar = document.getElementById("selection");
  const scrolled = new Map();
  const TOP = { y: 0, made: 0, first: 0 };
  let here = "";
  let watcher = null;

  // ---- selection

  UIC.select = (kind, items) => {
    UIC.selection.images.clear();
    UIC.selection.classes.clear();
    for (const item of items) UIC.selection[kind].add(item);
    showSelection();
  };

  UIC.toggle = (kind, item) => {
    const other = kind === "images" ? "classes" : "images";
    UIC.selection[other].clear();
    const set = UIC.selection[kind];
    set.has(item) ? set.delete(item) : set.add(item);
    showSelection();
  };

  let last = null; // where a selection with Shift begins
  UIC.selectTile = (tile, range) => {
    const i = Number(tile.dataset.image);
    const list = tile.list;
    if (range && last?.list === list) {
      const [a, b] = [list.indexOf(last.i), list.indexOf(i)].sort((p, q) => p - q);
      for (const j of list.slice(a, b + 1)) UIC.selection.images.add(j);
      UIC.selection.classes.clear();
      showSelection();
    } else UIC.toggle("images", i);
    last = { list, i };
  };

  const mark = () => {
    document.querySelectorAll(".tile").forEach(UIC.markTile);
    document.querySelectorAll(".card-frame").forEach(UIC.markCard);
  };

  const showSelection = () => {
    mark();
    const images = [...UIC.selection.images];
    const classes = [...UIC.selection.classes];
    const count = images.length + classes.length;
    bar.hidden = !count;
    document.body.classList.toggle("selecting", count > 0);
    if (!count) return;
    const clear = () => UIC.select("images", []);
    const then = (action) => async () => (await action(), clear());
    const kind = images.length ? "image" : "class";
    const many = kind === "image" ? "images" : "classes";
    bar.replaceChildren(
      h("strong", { class: "grow" }, `${UIC.count(count)} ${count === 1 ? kind : many} selected`),
      ...(images.length
        ? [
            button("Move …", async () => (await UIC.actions.move(images)) && clear(), { class: "main" }),
            button("Mark as wrong", then(() => UIC.actions.wrong(images))),
          ]
        : [
            classes.length > 1
              ? button("Merge", then(() => UIC.actions.merge(classes)), { class: "main" })
              : button("Name …", then(() => UIC.actions.name(classes[0])), { class: "main" }),
            button("Hide", then(() => UIC.actions.hide(classes))),
          ]),
      button("Clear", clear, { "aria-label": "Clear the selection" }),
    );
  };

  document.addEventListener("click", (event) => {
    const tick = event.target.closest("[data-tick]");
    if (tick) {
      UIC.toggle("classes", Number(tick.dataset.tick));
      return;
    }
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const wants = event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest(".tick");
    if (wants || UIC.selection.images.size) {
      event.preventDefault();
      UIC.selectTile(tile, event.shiftKey);
    } else UIC.openList = tile.list;
  });

  // ---- header

  const showHeader = () => {
    const { count, images, source, sampled } = UIC.store;
    const ids = UIC.state.ids.length;
    document.getElementById("summary").textContent = sampled
      ? `${UIC.count(ids)} classes · a sample of ${UIC.count(count)} of ${UIC.count(images)} images of ${source}`
      : `${UIC.count(images)} images · ${UIC.count(ids)} classes · ${source}`;
    const views = [
      ["", "Classes"],
      ...(UIC.store.map ? [["map", "Map"]] : []),
      ...(UIC.store.folderOf ? [["folders", "Folders"]] : []),
    ];
    const now = location.hash.split("/")[1] ?? "";
    document.getElementById("views").replaceChildren(
      ...views.map(([path, text]) => {
        const current = path === now || (path === "" && ["class", "image"].includes(now));
        return h("a", { href: `#/${path}`, "aria-current": current ? "page" : undefined }, text);
      }),
    );
    document.getElementById("unkept").hidden = !UIC.unkept();
    const made = UIC.edits.list.length;
    document.getElementById("tools").replaceChildren(
      button("↶", UIC.undo, { "aria-label": "Undo", title: "Undo (Ctrl Z)", disabled: !made, id: "undo" }),
      button("↷", UIC.redo, { "aria-label": "Redo", title: "Redo (Ctrl Shift Z)", disabled: !UIC.edits.undone.length, id: "redo" }),
      button("Open …", openFile, { title: "Open a saved edits.json", id: "open" }),
      button(made ? `Save ${edits(made)}` : "Save", UIC.saveEdits, {
        class: UIC.unsaved() ? "main" : null,
        id: "save",
        title: "Save edits.json (Ctrl S)",
        disabled: !made,
      }),
      button("◐", theme, { "aria-label": "Light or dark", title: "Light or dark", id: "theme" }),
      button("?", UIC.showHelp, { "aria-label": "Help", title: "Keyboard", id: "help" }),
    );
  };

  const edits = (count) => `${UIC.count(count)} ${count === 1 ? "edit" : "edits"}`;

  const openFile = () => {
    const input = h("input", { type: "file", accept: ".json,application/json" });
    input.addEventListener("change", async () => {
      try {
        const text = await input.files[0].text();
        const count = UIC.edits.list.length;
        if (count && UIC.unsaved() && !(await UIC.askReplace(edits(count)))) return;
        UIC.toast(`${edits(await UIC.loadEdits(text))} opened`);
      } catch (error) {
        UIC.toast(`Not opened: ${error.message}.`);
      }
    });
    input.click();
  };

  addEventListener("beforeunload", (event) => {
    if (!UIC.unkept()) return;
    event.preventDefault();
    event.returnValue = true; // Chromium before 119
  });

  const theme = () => {
    const root = document.documentElement;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = root.dataset.theme ?? (dark ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("uic-theme", root.dataset.theme);
    } catch {
      // the browser keeps nothing: the choice lasts as long as the page
    }
    watcher?.(); // a canvas takes its colours when it is drawn
  };

  // ---- views by address

  UIC.whileHere = (redraw) => {
    watcher = redraw;
  };

  const growing = () => main.querySelector(".growing");
  const boxOf = (element) => element.getBoundingClientRect();
  // the address without a view is that of all classes
  const address = () => location.hash || "#/";

  // Where the page stands: how long its list is, and the first element that begins below the header.
  // Pixels alone do not tell, as cards that have not been drawn yet are of another height.
  const placeNow = () => {
    const list = [...(growing()?.children ?? [])];
    const header = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop);
    const found = list.findIndex((element) => boxOf(element).top >= header);
    const first = found < 0 ? list.length - 1 : found;
    const box = first > 0 ? boxOf(list[first]) : {};
    return { y: scrollY, made: list.length, first, top: box.top, height: box.height };
  };

  // Bring a view made anew to that place: it begins with a part of its list.
  const goTo = ({ y, made, first, top, height }) => {
    growing()?.growTo(made);
    scrollTo(0, y);
    const list = growing()?.children;
    if (!(first > 0 && list?.[first])) return;
    for (const element of list) element.style.containIntrinsicBlockSize = `auto ${height}px`;
    scrollBy(0, boxOf(list[first]).top - top);
  };

  const route = async ({ keepScroll = false } = {}) => {
    const [, view = "", number] = location.hash.split("/");
    const name = view === "" ? "overview" : view;
    const place = UIC.views[name] ? name : "overview";
    const there = keepScroll ? placeNow() : (scrolled.get(address()) ?? TOP);
    here = address();
    watcher = null;
    if (place !== "overview" && place !== "folders") await UIC.needFeatures();
    if (place === "class") await UIC.needPaths();
    if (UIC.edits.list.some((edit) => edit.do === "merge")) await UIC.needHeads();
    if (here !== address()) return;
    const slot = h("div", { class: `view view-${place}` });
    const argument = number === undefined ? undefined : Number(number);
    const focus = keepScroll ? UIC.focusNow() : null;
    await UIC.views[place].render(slot, argument, UIC.openList);
    document.querySelectorAll(".sentinel").forEach((s) => s.remove());
    main.replaceChildren(slot);
    document.title = `${UIC.views[place].title(argument)} · ${UIC.store.title}`;
    showHeader();
    showSelection();
    goTo(place === "image" && !keepScroll ? TOP : there);
    if (focus) requestAnimationFrame(focus);
  };

  UIC.onEdit((what) => {
    if (what === "save") {
      showHeader();
      UIC.toast("edits.json is with your downloads");
      return;
    }
    for (const c of UIC.selection.classes) {
      if (!UIC.state.members.has(c)) UIC.selection.classes.delete(c);
    }
    if (watcher) {
      watcher();
      showHeader();
      showSelection();
    } else route({ keepScroll: true });
  });

  // ---- start

  const tellUnread = async ({ text, reason }) => {
    if (await UIC.askUnread(reason)) UIC.download(text, "edits-unread.json");
  };

  const start = async () => {
    try {
      const kept = localStorage.getItem("uic-theme");
      if (kept) document.documentElement.dataset.theme = kept;
    } catch {
      // the browser keeps nothing
    }
    UIC.openStore();
    document.body.classList.toggle("small-images", UIC.store.sprites.tile <= 32);
    let unread;
    try {
      unread = await UIC.openEdits();
    } catch (error) {
      // the edits stay with the browser: without them on the page, the next one would replace them
      const told = `Your edits cannot be shown (${error.message}): reload the page.`;
      document.querySelector("main").textContent = told;
      return;
    }
    await route();
    // before the browser scrolls to where it thinks the next view was
    addEventListener("popstate", () => scrolled.set(here, placeNow()));
    addEventListener("hashchange", () => route());
    document.documentElement.dataset.ready = "true";
    if (unread) tellUnread(unread);
    await UIC.needPaths();
    document.documentElement.dataset.paths = "true";
  };

  if (UIC.openStore && UIC.views.folders) start();
}
