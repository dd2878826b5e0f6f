// What people do to classes and images: each action is one or several edits that are undone together.
"use strict";

{
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
      const { hidden, names } = UIC.state;
      // a hidden class would hide the images of the others
      const rank = (c) => [hidden.has(c), !names.has(c), -UIC.numbersOf(c).size];
      const ordered = [...classes].sort((a, b) => {
        const [first, second] = [rank(a), rank(b)];
        return first.map((value, k) => value - second[k]).find((difference) => difference) ?? 0;
      });
      const into = ordered[0];
      const lost = ordered.slice(1).filter((c) => names.has(c)).map(UIC.nameOf);
      await UIC.edit({ do: "merge", classes: ordered, into });
      const before = lost.length ? `, before also ${lost.join(", ")}` : "";
      UIC.toast(`${classes.length} classes are now ${UIC.nameOf(into)}${before}`);
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
}
