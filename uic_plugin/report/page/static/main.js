// Starts the page: views by address, selection, actions, keyboard.
"use strict";

{
  const { h, button } = UIC;
  const main = document.getElementById("main");
  const bar = document.getElementById("selection");
  const scrolled = new Map();
  let here = "";
  let watcher = null;

  // ---- actions: everything that edits

  const fresh = async (name, edits) => {
    const id = UIC.freshClass();
    await UIC.edit(...edits(id), ...(name ? [{ do: "name", class: id, name }] : []));
    return id;
  };
  const paths = (images) => images.map((i) => UIC.store.paths[i]);

  UIC.actions = {
    name: async (c) => {
      const name = await UIC.askName(c);
      if (name !== null) await UIC.edit({ do: "name", class: c, name });
    },
    merge: async (classes) => {
      const largest = [...classes].sort((a, b) => UIC.numbersOf(b).size - UIC.numbersOf(a).size);
      const into = largest.find((c) => UIC.state.names.has(c)) ?? largest[0];
      await UIC.edit({ do: "merge", classes: largest, into });
      UIC.toast(`${classes.length} classes are now ${UIC.nameOf(into)}`);
      return into;
    },
    mergeWith: async (c) => {
      const other = await UIC.askClass(`Merge ${UIC.nameOf(c)} with`, { near: c, allowed: (id) => id !== c });
      if (!other) return;
      const into = await UIC.actions.merge([c, other.id]);
      if (into !== c) location.hash = `#/class/${into}`;
    },
    split: async (c) => {
      if (!UIC.isWhole(c)) {
        UIC.toast("The page shows only a sample of this class: a split would miss the others.");
        return;
      }
      await UIC.needPaths();
      const members = UIC.state.members.get(c);
      const ways = [];
      const origins = groups(members, (i) => UIC.store.label[i]);
      if (origins.length > 1) ways.push(["As it was before merging", () => origins]);
      if (await UIC.needFeatures()) {
        for (const k of [2, 3, 4]) {
          if (members.length >= k) ways.push([`Into ${k}, by their features`, () => UIC.kMeans(members, k)]);
        }
      }
      for (const [head, labels] of Object.entries(await UIC.needHeads())) {
        ways.push([`As ${head.replace("_", " ")} sees it`, () => groups(members, (i) => labels[i])]);
      }
      if (!ways.length) {
        UIC.toast("Without features there is nothing to split by: select images and move them to a new class.");
        return;
      }
      const parts = await UIC.askSplit(c, ways);
      if (!parts) return;
      const first = UIC.freshClass();
      await UIC.edit({
        do: "split",
        class: c,
        parts: parts.slice(1).map((images, k) => ({ class: first + k, images: paths(images) })),
      });
      UIC.toast(`${UIC.nameOf(c)} is now ${parts.length} classes`);
    },
    hide: (classes, hidden = true) =>
      UIC.edit(...classes.map((c) => ({ do: "hide", class: c, hidden }))),
    wrong: async (images, wrong = true) => {
      await UIC.needPaths();
      await UIC.edit({ do: "wrong", images: paths(images), wrong });
    },
    move: async (images) => {
      await UIC.needPaths();
      const from = new Set(images.map((i) => UIC.state.label[i]));
      const only = from.size === 1 ? [...from][0] : null;
      const chosen = await UIC.askClass(
        images.length === 1 ? "Move the image to" : `Move ${UIC.count(images.length)} images to`,
        { near: only, fresh: true, allowed: (c) => c !== only },
      );
      if (!chosen) return false;
      const text = images.length === 1 ? "The image is" : `${UIC.count(images.length)} images are`;
      let to = chosen.id;
      if (to === undefined) {
        to = await fresh(chosen.fresh, (id) => [{ do: "move", images: paths(images), to: id }]);
      } else await UIC.edit({ do: "move", images: paths(images), to });
      UIC.toast(`${text} now in ${UIC.nameOf(to)}`);
      return true;
    },
  };

  const groups = (members, key) => {
    const found = new Map();
    for (const i of members) {
      if (!found.has(key(i))) found.set(key(i), []);
      found.get(key(i)).push(i);
    }
    return [...found.values()].sort((a, b) => b.length - a.length);
  };

  // ---- selection

  UIC.select = (kind, items) => {
    UIC.selection.images.clear();
    UIC.selection.classes.clear();
    for (const item of items) UIC.selection[kind].add(item);
    showSelection();
  };

  const toggle = (kind, item) => {
    const other = kind === "images" ? "classes" : "images";
    UIC.selection[other].clear();
    const set = UIC.selection[kind];
    set.has(item) ? set.delete(item) : set.add(item);
    showSelection();
  };

  let last = null; // where a selection with Shift begins
  const selectTile = (tile, range) => {
    const i = Number(tile.dataset.image);
    const list = tile.list;
    if (range && last?.list === list) {
      const [a, b] = [list.indexOf(last.i), list.indexOf(i)].sort((p, q) => p - q);
      for (const j of list.slice(a, b + 1)) UIC.selection.images.add(j);
      UIC.selection.classes.clear();
      showSelection();
    } else toggle("images", i);
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
      toggle("classes", Number(tick.dataset.tick));
      return;
    }
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const wants = event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest(".tick");
    if (wants || UIC.selection.images.size) {
      event.preventDefault();
      selectTile(tile, event.shiftKey);
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
    const edits = UIC.edits.list.length;
    document.getElementById("tools").replaceChildren(
      button("↶", UIC.undo, { "aria-label": "Undo", title: "Undo (Ctrl Z)", disabled: !edits, id: "undo" }),
      button("↷", UIC.redo, { "aria-label": "Redo", title: "Redo (Ctrl Shift Z)", disabled: !UIC.edits.undone.length, id: "redo" }),
      button("Open …", openFile, { title: "Open a saved edits.json", id: "open" }),
      button(edits ? `Save ${edits} ${edits === 1 ? "edit" : "edits"}` : "Save", UIC.saveEdits, {
        class: UIC.unsaved() ? "main" : null,
        id: "save",
        title: "Save edits.json (Ctrl S)",
        disabled: !edits,
      }),
      button("◐", theme, { "aria-label": "Light or dark", title: "Light or dark", id: "theme" }),
      button("?", UIC.showHelp, { "aria-label": "Help", title: "Keyboard", id: "help" }),
    );
  };

  const openFile = () => {
    const input = h("input", { type: "file", accept: ".json,application/json" });
    input.addEventListener("change", async () => {
      try {
        const count = await UIC.loadEdits(await input.files[0].text());
        UIC.toast(`${count} edits opened`);
      } catch (error) {
        UIC.toast(`Not opened: ${error.message}.`);
      }
    });
    input.click();
  };

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

  const route = async ({ keepScroll = false } = {}) => {
    const [, view = "", number] = location.hash.split("/");
    const name = view === "" ? "overview" : view;
    const place = UIC.views[name] ? name : "overview";
    if (!keepScroll) scrolled.set(here, scrollY);
    const there = keepScroll ? scrollY : (scrolled.get(location.hash) ?? 0);
    here = location.hash;
    watcher = null;
    if (place !== "overview" && place !== "folders") await UIC.needFeatures();
    if (place === "class") await UIC.needPaths();
    if (here !== location.hash) return;
    const slot = h("div", { class: `view view-${place}` });
    const argument = number === undefined ? undefined : Number(number);
    await UIC.views[place].render(slot, argument, UIC.openList);
    document.querySelectorAll(".sentinel").forEach((s) => s.remove());
    main.replaceChildren(slot);
    document.title = `${UIC.views[place].title(argument)} · ${UIC.store.title}`;
    showHeader();
    showSelection();
    scrollTo(0, place === "image" && !keepScroll ? 0 : there);
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

  // ---- keyboard

  const openClass = () => {
    const [, view, number] = location.hash.split("/");
    const focused = document.activeElement?.closest(".card-frame")?.querySelector("[data-tick]");
    if (focused) return Number(focused.dataset.tick);
    return view === "class" ? Number(number) : null;
  };
  const openImages = () => {
    if (UIC.selection.images.size) return [...UIC.selection.images];
    const tile = document.activeElement?.closest(".tile");
    if (tile) return [Number(tile.dataset.image)];
    const [, view, number] = location.hash.split("/");
    return view === "image" ? [Number(number)] : [];
  };

  const toggleFocused = (range) => {
    const at = document.activeElement;
    const tile = at?.closest(".tile");
    if (tile) selectTile(tile, range);
    const card = at?.closest(".card-frame")?.querySelector("[data-tick]");
    if (card) toggle("classes", Number(card.dataset.tick));
    return Boolean(tile || card);
  };

  // The element beside the focused one: in reading order, or in the row above or below.
  const go = (key) => {
    const at = document.activeElement?.closest(".tile, .card");
    if (!at) {
      if (key === "ArrowLeft" || key === "ArrowRight") {
        const step = document.querySelector(`[data-step="${key === "ArrowLeft" ? -1 : 1}"]`);
        if (!step) return false;
        step.click();
        return true;
      }
      return false;
    }
    const all = [...main.querySelectorAll(at.matches(".tile") ? ".tile" : ".card")];
    const k = all.indexOf(at);
    const step = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
    let next = all[k + step];
    if (key === "ArrowUp" || key === "ArrowDown") {
      const box = at.getBoundingClientRect();
      const beyond = all.filter((other) => {
        const top = other.getBoundingClientRect().top;
        return step > 0 ? top > box.top + 4 : top < box.top - 4;
      });
      const gap = (other) => {
        const there = other.getBoundingClientRect();
        return Math.abs(there.top - box.top) * 4 + Math.abs(there.left - box.left);
      };
      next = beyond.sort((a, b) => gap(a) - gap(b))[0];
    }
    next?.focus();
    return Boolean(next);
  };

  const mergeOrMove = () => {
    if (UIC.selection.classes.size > 1) {
      return UIC.actions.merge([...UIC.selection.classes]).then(() => UIC.select("classes", []));
    }
    const images = openImages();
    if (images.length) return UIC.actions.move(images).then((done) => done && UIC.select("images", []));
    const c = openClass();
    return c === null ? null : UIC.actions.mergeWith(c);
  };

  const escape = () => {
    if (UIC.selection.images.size || UIC.selection.classes.size) UIC.select("images", []);
    else document.querySelector("[data-up]")?.click();
  };

  const KEYS = {
    "/": () => {
      if (location.hash.length > 2) location.hash = "#/";
      setTimeout(() => document.getElementById("filter")?.focus(), 50);
    },
    "?": () => UIC.showHelp(),
    n: () => openClass() !== null && UIC.actions.name(openClass()),
    m: mergeOrMove,
    w: () => {
      const images = openImages();
      if (images.length) UIC.actions.wrong(images, !images.every((i) => UIC.state.wrong.has(i)));
    },
    s: () => openClass() !== null && UIC.actions.split(openClass()),
    h: () => {
      const classes = UIC.selection.classes.size ? [...UIC.selection.classes] : [openClass()];
      if (classes[0] !== null) UIC.actions.hide(classes, !UIC.state.hidden.has(classes[0]));
    },
    1: () => (location.hash = "#/"),
    2: () => UIC.store.map && (location.hash = "#/map"),
    3: () => UIC.store.folderOf && (location.hash = "#/folders"),
    Escape: escape,
  };

  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target.closest?.("input, select, textarea");
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (command && key === "s") {
      event.preventDefault();
      if (UIC.edits.list.length) UIC.saveEdits();
    } else if (command && key === "z" && !typing) {
      event.preventDefault();
      event.shiftKey ? UIC.redo() : UIC.undo();
    } else if (typing && key === "Escape") event.target.blur();
    else if (!command && !event.altKey && !typing) {
      let used = false;
      if (key.startsWith("Arrow")) used = go(key);
      else if (key === "x" || (key === " " && document.activeElement?.matches(".tile, .card"))) {
        used = toggleFocused(event.shiftKey);
      } else if (Object.hasOwn(KEYS, key)) {
        KEYS[key]();
        used = true;
      }
      if (used) event.preventDefault();
    }
  });

  // ---- start

  const start = async () => {
    try {
      const kept = localStorage.getItem("uic-theme");
      if (kept) document.documentElement.dataset.theme = kept;
    } catch {
      // the browser keeps nothing
    }
    UIC.openStore();
    document.body.classList.toggle("small-images", UIC.store.sprites.tile <= 32);
    await UIC.openEdits();
    await route();
    addEventListener("hashchange", () => route());
    document.documentElement.dataset.ready = "true";
    await UIC.needPaths();
    document.documentElement.dataset.paths = "true";
  };

  if (UIC.openStore && UIC.views.folders) start();
}
