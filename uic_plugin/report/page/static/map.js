// The map of all images: a canvas that can be moved, enlarged and circled.
"use strict";

{
  const { h, button } = UIC;
  const NAMES = { pca: "principal components", umap: "UMAP", tsne: "t-SNE" };
  const CELLS = UIC.CELLS;
  const STRETCH = 1.6;
  const THUMBS = 260; // as many images in sight are drawn as images
  const view = { scale: 1, x: 0.5, y: 0.5, lasso: false, focus: null };

  let cells = null;

  UIC.views.map = {
    title: () => "Map",
    render: (main) => {
      const { x, y, count, map } = UIC.store;
      if (!map) {
        main.append(
          h("p", {}, "There is no map: the page was made without features."),
          h("code", {}, "uic classes LABELS FOLDER --features FEATURES"),
        );
        return;
      }
      cells ??= UIC.cellsOf(x, y);
      const canvas = h("canvas", {
        class: "map",
        tabindex: 0,
        role: "application",
        "aria-label":
          "Map of all images. Arrow keys move it, plus and minus enlarge it; the view of classes shows the same images as lists.",
      });
      const tip = h("div", { class: "tip", hidden: true });
      const legend = h("div", { class: "legend", role: "list", "aria-label": "Classes on the map" });
      const context = canvas.getContext("2d");
      let width = 0;
      let height = 0;
      let frame = 0;
      let circle = null;
      let hovered = -1;

      // The map fills its frame, but is never drawn out to more than STRETCH times its breadth.
      const sizeX = () => Math.min(width, height * STRETCH) * 0.92 * view.scale;
      const sizeY = () => Math.min(height, width * STRETCH) * 0.92 * view.scale;
      const toScreen = (i) => [
        width / 2 + (x[i] / 65535 - view.x) * sizeX(),
        height / 2 + (y[i] / 65535 - view.y) * sizeY(),
      ];
      const toMap = (px, py) => [
        (px - width / 2) / sizeX() + view.x,
        (py - height / 2) / sizeY() + view.y,
      ];

      const redraw = () => {
        cancelAnimationFrame(frame);
        frame = requestAnimationFrame(draw);
      };

      const drawThumb = (i, px, py, side, colour) => {
        const { url, column, row } = UIC.sprite(i);
        const image = UIC.sheet(url, redraw);
        const tile = UIC.store.sprites.tile;
        context.fillStyle = colour;
        context.fillRect(px - side / 2 - 2, py - side / 2 - 2, side + 4, side + 4);
        if (!image) return;
        context.drawImage(image, column * tile, row * tile, tile, tile, px - side / 2, py - side / 2, side, side);
      };

      const draw = () => {
        const ratio = devicePixelRatio || 1;
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, width, height);
        const { label, hidden } = UIC.state;
        const colours = new Map(UIC.state.ids.map((c) => [c, UIC.colourOf(c)]));
        const dot = Math.max(1.4, Math.min(8, (Math.sqrt(view.scale) * 260) / Math.sqrt(count)));
        const seen = [];
        const order = UIC.state.ids.filter((c) => !hidden.has(c));
        for (const c of order) {
          context.globalAlpha = view.focus === null || view.focus === c ? 0.85 : 0.08;
          context.fillStyle = colours.get(c);
          for (const i of UIC.state.members.get(c)) {
            const [px, py] = toScreen(i);
            if (px < -20 || py < -20 || px > width + 20 || py > height + 20) continue;
            if (dot < 2.5) context.fillRect(px - dot / 2, py - dot / 2, dot, dot);
            else {
              context.beginPath();
              context.arc(px, py, dot / 2, 0, 7);
              context.fill();
            }
            if (view.focus === null || view.focus === c) seen.push(i);
          }
        }
        context.globalAlpha = 1;
        if (seen.length <= THUMBS) {
          for (const i of seen) drawThumb(i, ...toScreen(i), 46, colours.get(label[i]));
        } else {
          for (const i of spread(seen, toScreen)) drawThumb(i, ...toScreen(i), 40, colours.get(label[i]));
        }
        for (const i of UIC.selection.images) {
          const [px, py] = toScreen(i);
          context.strokeStyle = getComputedStyle(canvas).color;
          context.lineWidth = 1.5;
          context.strokeRect(px - dot, py - dot, dot * 2, dot * 2);
        }
        if (hovered >= 0) drawThumb(hovered, ...toScreen(hovered), 64, colours.get(label[hovered]));
        if (circle?.length > 1) {
          context.strokeStyle = getComputedStyle(canvas).color;
          context.lineWidth = 2;
          context.setLineDash([6, 4]);
          context.beginPath();
          circle.forEach(([px, py], k) => (k ? context.lineTo(px, py) : context.moveTo(px, py)));
          context.closePath();
          context.stroke();
          context.setLineDash([]);
        }
      };

      // Some of the images in sight, the surest of their classes first, far enough apart that
      // none covers another.
      const spread = (seen, place) => {
        const free = new Set();
        const chosen = [];
        const step = 62;
        for (const i of [...seen].sort((a, b) => a - b)) {
          const [px, py] = place(i);
          const column = Math.floor(px / step);
          const row = Math.floor(py / step);
          if (free.has(`${column},${row}`)) continue;
          if (chosen.some(([qx, qy]) => Math.abs(qx - px) < step && Math.abs(qy - py) < step)) continue;
          free.add(`${column},${row}`);
          chosen.push([px, py, i]);
          if (chosen.length >= 160) break;
        }
        return chosen.map((item) => item[2]);
      };

      const nearest = (px, py) => {
        const [mx, my] = toMap(px, py);
        const reach = 24; // pixels
        let best = -1;
        let least = reach * reach;
        const low = (v, size) => Math.max(0, Math.floor((v - reach / size) * CELLS));
        const high = (v, size) => Math.min(CELLS - 1, Math.floor((v + reach / size) * CELLS));
        for (let cx = low(mx, sizeX()); cx <= high(mx, sizeX()); cx++) {
          for (let cy = low(my, sizeY()); cy <= high(my, sizeY()); cy++) {
            for (const i of cells.get(cx * CELLS + cy) ?? []) {
              if (UIC.state.hidden.has(UIC.state.label[i])) continue;
              const [qx, qy] = toScreen(i);
              const d = (qx - px) ** 2 + (qy - py) ** 2;
              if (d < least) [best, least] = [i, d];
            }
          }
        }
        return best;
      };

      const zoom = (factor, px = width / 2, py = height / 2) => {
        const [mx, my] = toMap(px, py);
        view.scale = Math.max(0.8, Math.min(200, view.scale * factor));
        view.x = mx - (px - width / 2) / sizeX();
        view.y = my - (py - height / 2) / sizeY();
        redraw();
      };

      const at = (event) => {
        const box = canvas.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };

      const hover = (i, px, py) => {
        hovered = i;
        tip.hidden = i < 0;
        if (i >= 0) {
          tip.replaceChildren(
            UIC.thumb(i, { class: "thumb" }),
            h("strong", {}, UIC.nameOf(UIC.state.label[i])),
            h("span", { class: "path" }, UIC.store.paths?.[i] ?? ""),
          );
          tip.style.left = `${Math.min(px + 14, width - 190)}px`;
          tip.style.top = `${Math.min(py + 14, height - 210)}px`;
        }
        canvas.style.cursor = view.lasso ? "crosshair" : i >= 0 ? "pointer" : "grab";
        redraw();
      };

      const fingers = new Map();
      let start = null;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        fingers.set(event.pointerId, at(event));
        const [px, py] = at(event);
        start = { px, py, x: view.x, y: view.y, moved: false };
        circle = view.lasso || event.shiftKey ? [[px, py]] : null;
      });
      canvas.addEventListener("pointermove", (event) => {
        const [px, py] = at(event);
        if (!fingers.has(event.pointerId)) {
          hover(nearest(px, py), px, py);
          return;
        }
        if (fingers.size === 2) {
          const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
          const [qx, qy] = fingers.get(event.pointerId);
          const before = Math.hypot(qx - other[0], qy - other[1]);
          zoom(Math.hypot(px - other[0], py - other[1]) / Math.max(before, 1), (px + other[0]) / 2, (py + other[1]) / 2);
          fingers.set(event.pointerId, [px, py]);
          start.moved = true;
          circle = null;
          return;
        }
        fingers.set(event.pointerId, [px, py]);
        if (Math.hypot(px - start.px, py - start.py) > 4) start.moved = true;
        if (circle) circle.push([px, py]);
        else if (start.moved) {
          view.x = start.x - (px - start.px) / sizeX();
          view.y = start.y - (py - start.py) / sizeY();
        }
        redraw();
      });
      const up = (event) => {
        if (!fingers.delete(event.pointerId) || fingers.size) return;
        if (circle && start.moved) {
          const found = [];
          for (let i = 0; i < count; i++) {
            if (UIC.state.hidden.has(UIC.state.label[i])) continue;
            if (UIC.inside(circle, ...toScreen(i))) found.push(i);
          }
          circle = null;
          view.lasso = false;
          lasso.setAttribute("aria-pressed", "false");
          UIC.select("images", found);
          showCircled(found);
        } else if (!start.moved && event.type === "pointerup") {
          const i = nearest(...at(event));
          if (i >= 0) location.hash = `#/class/${UIC.state.label[i]}`;
        }
        circle = null;
        redraw();
      };
      canvas.addEventListener("pointerup", up);
      canvas.addEventListener("pointercancel", up);
      canvas.addEventListener("pointerleave", () => hover(-1));
      canvas.addEventListener(
        "wheel",
        (event) => {
          event.preventDefault();
          zoom(Math.exp(-event.deltaY * 0.0015), ...at(event));
        },
        { passive: false },
      );
      canvas.addEventListener("keydown", (event) => {
        const [sx, sy] = [60 / sizeX(), 60 / sizeY()];
        const moves = { ArrowLeft: [-sx, 0], ArrowRight: [sx, 0], ArrowUp: [0, -sy], ArrowDown: [0, sy] };
        if (moves[event.key]) {
          view.x += moves[event.key][0];
          view.y += moves[event.key][1];
        } else if (event.key === "+" || event.key === "=") zoom(1.4);
        else if (event.key === "-") zoom(1 / 1.4);
        else if (event.key === "0") Object.assign(view, { scale: 1, x: 0.5, y: 0.5 });
        else return;
        event.preventDefault();
        event.stopPropagation();
        redraw();
      });

      const circled = h("section", { "aria-label": "Circled images" });
      const showCircled = (images) => {
        circled.replaceChildren();
        if (!images.length) return;
        const counts = new Map();
        for (const i of images) counts.set(UIC.state.label[i], (counts.get(UIC.state.label[i]) ?? 0) + 1);
        const top = [...counts].sort((a, b) => b[1] - a[1]);
        circled.append(
          h("h3", {}, `${UIC.count(images.length)} circled images`),
          h(
            "div",
            { class: "chips" },
            top.slice(0, 8).map(([c, n]) => h("a", { class: "chip", href: `#/class/${c}` }, UIC.nameOf(c), h("span", { class: "quiet" }, UIC.count(n)))),
          ),
          UIC.grid(images),
        );
      };

      const lasso = button("Circle images", () => {
        view.lasso = !view.lasso;
        lasso.setAttribute("aria-pressed", String(view.lasso));
      }, { "aria-pressed": "false", title: "or hold Shift and draw" });
      const fillLegend = () => {
        const ids = [...UIC.state.ids]
          .filter((c) => !UIC.state.hidden.has(c))
          .sort((a, b) => UIC.numbersOf(b).size - UIC.numbersOf(a).size);
        legend.replaceChildren(
          ...ids.slice(0, 60).map((c) => {
            const spot = h("span", { class: "dot", "aria-hidden": "true" });
            spot.style.background = UIC.colourOf(c);
            const item = h(
              "a",
              {
                role: "listitem",
                href: `#/class/${c}`,
                class: "legend-item",
                onmouseenter: () => ((view.focus = c), redraw()),
                onmouseleave: () => ((view.focus = null), redraw()),
                onfocus: () => ((view.focus = c), redraw()),
                onblur: () => ((view.focus = null), redraw()),
              },
              spot,
              h("span", { class: "clip grow" }, UIC.nameOf(c)),
              h("span", { class: "quiet" }, UIC.count(UIC.numbersOf(c).size)),
            );
            return item;
          }),
        );
      };
      view.focus = null;
      fillLegend();
      main.append(
        h(
          "div",
          { class: "bar-top" },
          button("+", () => zoom(1.5), { "aria-label": "Enlarge" }),
          button("−", () => zoom(1 / 1.5), { "aria-label": "Make smaller" }),
          button("All", () => (Object.assign(view, { scale: 1, x: 0.5, y: 0.5 }), redraw()), { "aria-label": "Show the whole map" }),
          lasso,
          h("span", { class: "quiet" }, `${UIC.count(count)} images by ${NAMES[map.kind]} of their features; a click opens a class`),
        ),
        h("div", { class: "map-frame" }, h("div", { class: "map-slot" }, canvas, tip), legend),
        circled,
      );
      const fit = () => {
        const box = canvas.getBoundingClientRect();
        [width, height] = [box.width, box.height];
        const ratio = devicePixelRatio || 1;
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
        draw();
      };
      new ResizeObserver(fit).observe(canvas);
      UIC.whileHere(() => {
        fillLegend();
        redraw();
      });
    },
  };
}
