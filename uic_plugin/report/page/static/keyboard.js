// The keyboard: arrows go from card to card and from image to image, letters edit.
"use strict";

{
  const main = document.getElementById("main");

  // What a key edits: never a class or an image of the address that is not on this page.
  const openClass = () => {
    const [, view, number] = location.hash.split("/");
    const focused = document.activeElement?.closest(".card-frame")?.querySelector("[data-tick]");
    if (focused) return Number(focused.dataset.tick);
    if (UIC.selection.classes.size === 1) return [...UIC.selection.classes][0];
    return view === "class" && UIC.state.members.has(Number(number)) ? Number(number) : null;
  };
  const openImages = () => {
    if (UIC.selection.images.size) return [...UIC.selection.images];
    const tile = document.activeElement?.closest(".tile");
    if (tile) return [Number(tile.dataset.image)];
    const [, view, number] = location.hash.split("/");
    return view === "image" && UIC.isImage(Number(number)) ? [Number(number)] : [];
  };

  const toggleFocused = (range) => {
    const at = document.activeElement;
    const tile = at?.closest(".tile");
    if (tile) UIC.selectTile(tile, range);
    const card = at?.closest(".card-frame")?.querySelector("[data-tick]");
    if (card) UIC.toggle("classes", Number(card.dataset.tick));
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

  // A function that gives the focus back once the view is drawn anew: to the same image or class, or
  // to what stands in its place.
  UIC.focusNow = () => {
    const kinds = { ".tile": "image", "[data-tick]": "tick" };
    const at = document.activeElement?.closest(".tile, .card-frame");
    const marked = at?.matches(".card-frame") ? at.querySelector("[data-tick]") : at;
    if (!marked) return null;
    const kind = marked.matches(".tile") ? ".tile" : "[data-tick]";
    const key = kinds[kind];
    const place = [...main.querySelectorAll(kind)].indexOf(marked);
    return () => {
      if (document.querySelector("dialog[open]") || main.contains(document.activeElement)) return;
      const all = [...main.querySelectorAll(kind)];
      const isSame = (other) => other?.dataset[key] === marked.dataset[key];
      const there = all[Math.min(place, all.length - 1)];
      const found = isSame(there) ? there : (all.find(isSame) ?? there); // strips repeat images
      const target = kind === ".tile" ? found : found?.closest(".card-frame").querySelector(".card");
      target?.focus({ preventScroll: true });
    };
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
}
