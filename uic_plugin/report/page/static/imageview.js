// One image, large, with what is known of it.
"use strict";

{
  const { h, button } = UIC;

  const facts = (i) => {
    const store = UIC.store;
    const c = UIC.state.label[i];
    const items = [["Class", h("a", { href: `#/class/${c}` }, UIC.nameOf(c))]];
    if (store.confidence) items.push(["Confidence", UIC.format(store.confidence[i], 3)]);
    if (store.entropy) items.push(["Entropy", `${UIC.format(store.entropy[i], 3)} nats`]);
    const second = secondOf(i);
    if (second) items.push(["Second best", second]);
    if (store.agreement) items.push(["Agreement of heads", UIC.format(UIC.agreementOf(i), 3)]);
    if (store.distance) items.push(["Distance to its class", UIC.format(store.distance[i], 3)]);
    if (store.label[i] !== c) items.push(["In the label file", `class ${store.label[i]}`]);
    if (store.folderOf) items.push(["Folder", store.folderNames[store.folderOf[i]]]);
    items.push([
      "File",
      h("a", { href: UIC.original(i), target: "_blank", rel: "noopener", class: "path" }, store.paths[i]),
    ]);
    return h("dl", { class: "image-facts" }, items.map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]).flat());
  };

  const secondOf = (i) => {
    const store = UIC.store;
    if (store.second && store.second[i] >= 0) {
      const c = UIC.followed(store.second[i]);
      const score = store.secondConfidence ? `, ${UIC.format(store.secondConfidence[i], 3)}` : "";
      if (!UIC.state.members.has(c) || c === UIC.state.label[i]) return null;
      return h("span", {}, h("a", { href: `#/class/${c}` }, UIC.nameOf(c)), score);
    }
    return null;
  };

  UIC.views.image = {
    title: (i) => UIC.store.paths?.[i] ?? "Image",
    render: async (main, i, list) => {
      if (!UIC.isImage(i)) {
        main.append(h("p", {}, "There is no such image on this page."));
        return;
      }
      await UIC.needPaths();
      const c = UIC.state.label[i];
      const order = list?.includes(i) ? list : UIC.ordered(c, "typical");
      const at = order.indexOf(i);
      const step = (by, text) => {
        const next = order[at + by];
        return next === undefined
          ? h("span", { class: "button off", "aria-hidden": "true" }, text)
          : h("a", { class: "button", href: `#/image/${next}`, "data-step": by, "aria-label": by < 0 ? "Previous image" : "Next image" }, text);
      };
      UIC.openList = order;
      const wrong = UIC.state.wrong.has(i);
      const photo = h("div", { class: "photo" });
      const fallback = UIC.thumb(i, { class: "thumb large" });
      const picture = h("img", { alt: UIC.store.paths[i], decoding: "async" });
      picture.addEventListener("load", () => {
        if (picture.naturalWidth < 100) picture.classList.add("small");
        photo.replaceChildren(picture);
      });
      picture.addEventListener("error", () => {
        photo.append(h("p", { class: "quiet" }, "The file is not there, or no kind of image that a browser shows; this is its thumbnail."));
      });
      photo.append(fallback);
      picture.src = UIC.original(i);
      const similar = h("section", { "aria-label": "Most similar images" });
      main.append(
        h(
          "div",
          { class: "row head" },
          h("a", { class: "button", href: `#/class/${c}`, "aria-label": `Back to ${UIC.nameOf(c)}`, "data-up": true }, "←"),
          h("h2", { class: "grow clip" }, UIC.store.paths[i].split("/").at(-1)),
          step(-1, "‹"),
          step(1, "›"),
        ),
        h(
          "div",
          { class: "image-view" },
          photo,
          h(
            "div",
            { class: "image-side" },
            facts(i),
            h(
              "div",
              { class: "row actions", role: "toolbar", "aria-label": "Edit this image" },
              button("Move …", () => UIC.actions.move([i])),
              button(wrong ? "Not wrong after all" : "Mark as wrong", () => UIC.actions.wrong([i], !wrong)),
            ),
          ),
        ),
        similar,
      );
      if (await UIC.needFeatures()) {
        similar.append(
          h("h3", {}, "Most similar images", h("small", {}, ` by ${UIC.store.features.width} components of the features`)),
          UIC.strip(UIC.similar(i, 24)),
        );
      }
    },
  };
}
