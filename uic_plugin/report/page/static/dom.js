// Building blocks of the page. Text reaches the document as text nodes and attributes alone, so
// that no name of a file or class can be read as markup.
"use strict";

UIC.views = {};
UIC.selection = { images: new Set(), classes: new Set() };

{
  // An element: h("button", { class: "x", onclick: f, "aria-label": "y" }, children...).
  UIC.h = (tag, props = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "text") element.textContent = value;
      else if (name === "value" || name === "checked") element[name] = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  };

  const { h } = UIC;

  UIC.format = (value, digits = 2) =>
    Number.isFinite(value) ? value.toFixed(digits) : "–";
  UIC.count = (value) => value.toLocaleString("en");
  UIC.percent = (value) => (Number.isFinite(value) ? `${Math.round(value * 100)} %` : "–");

  // Draw an image's thumbnail as the background of an element.
  UIC.paint = (element, i) => {
    const { url, column, row, side, rows } = UIC.sprite(i);
    element.style.backgroundImage = `url("${url}")`;
    element.style.backgroundSize = `${side * 100}% ${rows * 100}%`;
    const x = side > 1 ? (column / (side - 1)) * 100 : 0;
    const y = rows > 1 ? (row / (rows - 1)) * 100 : 0;
    element.style.backgroundPosition = `${x}% ${y}%`;
    return element;
  };

  UIC.thumb = (i, props = {}) => UIC.paint(h("span", { class: "thumb", ...props }), i);

  UIC.labelOfImage = (i) => {
    const path = UIC.store.paths ? UIC.store.paths[i] : `image ${i}`;
    const wrong = UIC.state.wrong.has(i) ? ", marked as wrong" : "";
    return `${path}, ${UIC.nameOf(UIC.state.label[i])}${wrong}`;
  };

  // A thumbnail that opens its image, and can be selected.
  UIC.tile = (i, list) => {
    const element = h("a", {
      class: "tile",
      href: `#/image/${i}`,
      "data-image": i,
      "aria-label": UIC.labelOfImage(i),
      title: UIC.store.paths?.[i],
    });
    element.append(UIC.thumb(i), h("span", { class: "tick", "aria-hidden": "true" }));
    element.list = list;
    UIC.markTile(element);
    return element;
  };

  UIC.markTile = (element) => {
    const i = Number(element.dataset.image);
    const selected = UIC.selection.images.has(i);
    element.classList.toggle("selected", selected);
    element.classList.toggle("wrong", UIC.state.wrong.has(i));
  };

  // Append elements as they are scrolled to: never all of a hundred thousand at once.
  UIC.grow = (container, count, make, chunk = 96) => {
    let made = 0;
    const sentinel = h("div", { class: "sentinel", "aria-hidden": "true" });
    const more = (wanted = made + chunk) => {
      const until = Math.min(count, wanted);
      const fragment = document.createDocumentFragment();
      for (; made < until; made++) fragment.append(make(made));
      container.append(fragment);
      if (made >= count) {
        observer.disconnect();
        sentinel.remove();
      }
    };
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        more();
        observer.unobserve(sentinel); // look again: the end may still be in sight
        if (made < count) observer.observe(sentinel);
      },
      { rootMargin: "600px" },
    );
    more();
    container.classList.add("growing");
    container.growTo = more;
    if (made < count) {
      container.after(sentinel);
      observer.observe(sentinel);
    }
  };

  UIC.button = (text, onclick, props = {}) => h("button", { type: "button", onclick, ...props }, text);

  // A bar with a number, for shares in [0, 1].
  UIC.bar = (name, value, text, title) => {
    const fill = h("span", { class: "fill" });
    const share = Number.isFinite(value) ? Math.max(0, Math.min(1, value)) : 0;
    fill.style.inlineSize = `${(share * 100).toFixed(1)}%`;
    return h(
      "div",
      { class: "bar", title },
      h("span", { class: "bar-name" }, name),
      h("span", { class: "track", "aria-hidden": "true" }, fill),
      h("span", { class: "bar-value" }, text),
    );
  };

  let fading = 0;
  UIC.toast = (text) => {
    const element = document.getElementById("toast");
    element.textContent = text;
    element.classList.add("shown");
    clearTimeout(fading);
    fading = setTimeout(() => element.classList.remove("shown"), 4000);
  };

  UIC.grid = (images, props = {}) => {
    const container = h("div", { class: "tiles", ...props });
    queueMicrotask(() => UIC.grow(container, images.length, (k) => UIC.tile(images[k], images)));
    return container;
  };

  UIC.strip = (images, props = {}) =>
    h("div", { class: "tiles strip", ...props }, images.map((i) => UIC.tile(i, images)));
}
