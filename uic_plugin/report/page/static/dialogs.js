// Questions that the page asks: which class, which name, how to split; and the help.
"use strict";

{
  const { h, button } = UIC;

  // Show a dialog; what `fill` passes to its `close` is the answer, null if it was left.
  const ask = (title, fill) =>
    new Promise((resolve) => {
      const dialog = h("dialog", { "aria-label": title });
      let answer = null;
      const close = (value) => {
        answer = value;
        dialog.close();
      };
      dialog.append(
        h("h2", {}, title),
        ...fill(close),
      );
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(answer);
      });
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
      document.body.append(dialog);
      dialog.showModal();
      dialog.querySelector("[data-first]")?.focus();
    });

  const ending = (close, text) =>
    h(
      "div",
      { class: "row end" },
      button("Cancel", () => close(null)),
      text && h("button", { class: "main", type: "submit" }, text),
    );

  UIC.askName = (c) =>
    ask(`Name of ${UIC.nameOf(c)}`, (close) => {
      const input = h("input", {
        "data-first": true,
        "aria-label": "Name",
        maxlength: 200,
        value: UIC.state.names.get(c) ?? "",
        autocomplete: "off",
      });
      queueMicrotask(() => input.select());
      const form = h("form", { method: "dialog" }, input, ending(close, "Name it"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        close(input.value.trim());
      });
      return [form];
    });

  // Whether to replace the edits at hand.
  UIC.askReplace = (count) =>
    ask("Replace the edits at hand?", (close) => [
      h("p", {}, `${count} that you have not saved will be lost. Save them first to keep them.`),
      h(
        "div",
        { class: "row end" },
        button("Cancel", () => close(null), { "data-first": true }),
        button("Replace them", () => close(true), { class: "main" }),
      ),
    ]);

  // Whether to save the edits that the page could not read.
  UIC.askUnread = (reason) =>
    ask("Edits that cannot be read", (close) => [
      h("p", {}, `What this browser kept of your edits is not on the page: ${reason}. It is put aside in the browser; save it as a file to see what is in it.`),
      h(
        "div",
        { class: "row end" },
        button("Close", () => close(null)),
        button("Save it", () => close(true), { class: "main", "data-first": true }),
      ),
    ]);

  // A class out of all that pass `allowed`; "new" where `fresh` is set and chosen.
  UIC.askClass = (title, { allowed = () => true, near = null, fresh = false } = {}) =>
    ask(title, (close) => {
      const input = h("input", {
        "data-first": true,
        type: "search",
        "aria-label": "Filter classes",
        placeholder: "Filter by name or number",
        autocomplete: "off",
      });
      const list = h("div", { class: "choices", role: "listbox", "aria-label": "Classes" });
      const order = orderedByNearness(near).filter(allowed);
      const fill = () => {
        const text = input.value.trim().toLowerCase();
        const found = order.filter((c) => UIC.isCalled(c, text));
        const exact = found.filter((c) => UIC.nameOf(c).toLowerCase() === text || String(c) === text);
        const others = found.filter((c) => !exact.includes(c)).slice(0, 200);
        const shown = (c) =>
          choice(c, c, `${UIC.nameOf(c)}${UIC.state.hidden.has(c) ? " (hidden)" : ""}`);
        list.replaceChildren(
          ...exact.map(shown), // first: it is what Enter takes
          ...(fresh ? [choice("new", null, text ? `New class “${input.value.trim()}”` : "A new class")] : []),
          ...others.map(shown),
        );
      };
      const choice = (value, c, text) =>
        h(
          "button",
          {
            type: "button",
            role: "option",
            class: "choice",
            onclick: () => close(value === "new" ? { fresh: input.value.trim() } : { id: value }),
          },
          c === null ? h("span", { class: "thumb plus" }, "+") : cover(c),
          h("span", { class: "grow" }, text),
          c === null ? null : h("span", { class: "quiet" }, UIC.count(UIC.numbersOf(c).size)),
        );
      input.addEventListener("input", fill);
      input.addEventListener("keydown", (event) => {
        if (event.key === "ArrowDown") list.querySelector("button")?.focus();
        if (event.key === "Enter") {
          event.preventDefault();
          // without a text nobody has chosen yet: the list takes the focus, a second Enter chooses
          const best = list.querySelector("button");
          input.value.trim() ? best?.click() : best?.focus();
        }
      });
      list.addEventListener("keydown", (event) => {
        const at = document.activeElement;
        const next = { ArrowDown: at.nextElementSibling, ArrowUp: at.previousElementSibling };
        if (!(event.key in next)) return;
        event.preventDefault();
        (next[event.key] ?? input).focus();
      });
      fill();
      return [input, list, ending(close)];
    });

  const cover = (c) => {
    const best = UIC.ordered(c, "typical")[0];
    return best === undefined ? h("span", { class: "thumb" }) : UIC.thumb(best);
  };

  const orderedByNearness = (c) => {
    const ids = [...UIC.state.ids];
    ids.sort((a, b) => UIC.numbersOf(b).size - UIC.numbersOf(a).size);
    if (c === null) return ids;
    const near = UIC.neighbours(c, 12).map((n) => n.id);
    return [...near, ...ids.filter((id) => id !== c && !near.includes(id))];
  };

  // How to split a class: groups of images, largest first, or null.
  UIC.askSplit = (c, ways) =>
    ask(`Split ${UIC.nameOf(c)}`, (close) => {
      const preview = h("div", { class: "parts" });
      let parts = null;
      const done = button("Split", () => close(parts), { class: "main", disabled: true });
      const show = (make) => {
        parts = make();
        done.disabled = parts.length < 2;
        preview.replaceChildren(
          ...(parts.length < 2
            ? [h("p", {}, "This way gives one group only.")]
            : parts.map((part) =>
                h(
                  "div",
                  { class: "part" },
                  h("span", { class: "quiet" }, `${UIC.count(part.length)} images`),
                  h("div", { class: "tiles strip" }, part.slice(0, 7).map((i) => UIC.thumb(i))),
                ),
              )),
        );
      };
      const options = ways.map(([text, make], k) =>
        h(
          "label",
          { class: "way" },
          h("input", {
            type: "radio",
            name: "way",
            "data-first": k === 0,
            checked: k === 0,
            onchange: () => show(make),
          }),
          text,
        ),
      );
      show(ways[0][1]);
      return [
        h("div", { class: "ways" }, options),
        preview,
        h("div", { class: "row end" }, button("Cancel", () => close(null)), done),
      ];
    });

  const KEYS = [
    ["Arrow keys", "go from class to class and from image to image"],
    ["Enter", "opens"],
    ["X or Space", "selects; with Shift up to here"],
    ["/", "filters the classes"],
    ["N", "names the focused, selected or open class"],
    ["M", "merges selected classes; moves selected images or the one that is open"],
    ["W", "marks images as wrong"],
    ["S", "splits the open class"],
    ["H", "hides a class"],
    ["Ctrl Z, Ctrl Shift Z", "undo, redo"],
    ["Ctrl S", "saves the edits as edits.json"],
    ["Escape", "clears the selection, goes one level up"],
    ["1, 2, 3", "classes, map, folders"],
  ];

  UIC.showHelp = () =>
    ask("Keyboard", (close) => [
      h("dl", { class: "keys" }, KEYS.map(([key, text]) => [h("dt", {}, key), h("dd", {}, text)]).flat()),
      h("p", { class: "quiet" }, "Edits stay in this browser. Save them, then: "),
      h("code", {}, "uic labels apply edits.json LABELS --out NEW"),
      h("div", { class: "row end" }, button("Close", () => close(null), { "data-first": true })),
    ]);
}
