// Edits: a list of small records that is played over the labels of the label file. Undo drops the
// last record and plays the others again, so that every state can be reached in one way only.
"use strict";

{
  const FORMAT = "uic-edits";
  const VERSION = 1;
  const list = [];
  const undone = [];
  const listeners = [];
  const MOST_CLASSES = 2 ** 24; // as `uic labels apply` has it
  let keptText = null; // what the browser keeps, as this page has last seen it
  let refused = false; // whether the browser did not keep the edits
  let nextClass = 0;

  UIC.edits = { list, undone };
  UIC.onEdit = (listener) => listeners.push(listener);

  const key = () => `uic-edits:${UIC.store.fingerprint}`;
  const savedKey = () => `uic-saved:${UIC.store.fingerprint}`;

  const indices = (paths) => paths.map(UIC.indexOfPath).filter((i) => i !== undefined);

  // The number of images of a class that the page does not show, and sums of their scores.
  const restOf = () =>
    new Map(Object.entries(UIC.store.rest).map(([c, sums]) => [Number(c), [...sums]]));

  // The first number for a new class. The column `second` and earlier epochs may name classes that
  // have no images now, which a new one must not be taken for.
  const firstFree = () => {
    const { lastClass, history, second } = UIC.store;
    let most = Math.max(lastClass, (history?.size.length ?? 0) - 1);
    for (const c of second ?? []) {
      if (c < MOST_CLASSES - 1) most = Math.max(most, c); // above it no number would be left
    }
    return most + 1;
  };

  const play = () => {
    const store = UIC.store;
    const state = {
      label: store.label.slice(),
      names: new Map(Object.entries(store.names).map(([c, name]) => [Number(c), name])),
      hidden: new Set(store.hidden),
      wrong: new Set(),
      rest: restOf(),
    };
    if (store.wrong) store.wrong.forEach((value, i) => value && state.wrong.add(i));
    nextClass = firstFree();
    for (const edit of list) STEPS[edit.do](state, edit);
    return collect(state);
  };

  const STEPS = {
    name: (state, { class: c, name }) => {
      if (name) state.names.set(c, name);
      else state.names.delete(c);
    },
    merge: (state, { classes, into }) => {
      const gone = new Set(classes.filter((c) => c !== into));
      for (let i = 0; i < state.label.length; i++) {
        if (gone.has(state.label[i])) state.label[i] = into;
      }
      for (const c of gone) {
        if (state.rest.has(c)) {
          const sums = state.rest.get(into) ?? [0, 0, 0, 0];
          state.rest.set(into, sums.map((value, k) => value + state.rest.get(c)[k]));
          state.rest.delete(c);
        }
        if (!state.names.has(into) && state.names.has(c)) {
          state.names.set(into, state.names.get(c));
        }
        state.names.delete(c);
        state.hidden.delete(c);
      }
    },
    split: (state, { parts }) => {
      for (const part of parts) STEPS.move(state, { images: part.images, to: part.class });
    },
    move: (state, { images, to }) => {
      for (const i of indices(images)) {
        state.label[i] = to;
        state.wrong.delete(i);
      }
      nextClass = Math.max(nextClass, to + 1);
    },
    wrong: (state, { images, wrong }) => {
      for (const i of indices(images)) wrong ? state.wrong.add(i) : state.wrong.delete(i);
    },
    hide: (state, { class: c, hidden }) => {
      hidden ? state.hidden.add(c) : state.hidden.delete(c);
    },
  };

  const collect = (state) => {
    const members = new Map();
    for (let i = 0; i < state.label.length; i++) {
      const c = state.label[i];
      if (!members.has(c)) members.set(c, []);
      members.get(c).push(i);
    }
    for (const c of state.rest.keys()) if (!members.has(c)) members.set(c, []);
    state.members = members;
    state.ids = [...members.keys()].sort((a, b) => a - b);
    return state;
  };

  const changed = (what) => {
    UIC.state = play();
    keep();
    for (const listener of listeners) listener(what);
  };

  const kept = () => {
    try {
      return localStorage.getItem(key());
    } catch {
      return null; // a browser that keeps nothing
    }
  };

  const keep = () => {
    try {
      if (list.length) localStorage.setItem(key(), JSON.stringify(record()));
      else localStorage.removeItem(key());
      refused = false;
    } catch {
      refused = true; // full, or a browser that keeps nothing
    }
    keptText = kept(); // where it is full, older edits: not another tab's
  };

  const record = () => ({
    format: FORMAT,
    version: VERSION,
    labels: {
      file: UIC.store.source,
      images: UIC.store.images,
      fingerprint: UIC.store.fingerprint,
    },
    edits: list,
  });

  // Take over what another tab of this page has made of the edits.
  const follow = async () => {
    const text = kept();
    if (text === keptText) return;
    let edits = [];
    try {
      if (text) edits = check(JSON.parse(text));
    } catch {
      return; // what is there cannot be shown: this page's edits stay
    }
    await UIC.needPaths();
    keptText = text;
    list.splice(0, list.length, ...edits);
    undone.length = 0;
    UIC.state = play();
    for (const listener of listeners) listener("load");
  };
  addEventListener("storage", (event) => event.key === key() && follow());

  UIC.freshClass = () => nextClass;

  UIC.edit = async (...edits) => {
    await UIC.needPaths();
    await follow();
    list.push(...edits.map((edit) => ({ ...edit })));
    if (edits.length > 1) list.at(-1).with = edits.length; // undone together
    undone.length = 0;
    changed("edit");
  };

  UIC.undo = () => {
    if (!list.length) return false;
    const size = list.at(-1).with ?? 1;
    undone.push(list.splice(list.length - size, size));
    changed("undo");
    return true;
  };

  UIC.redo = () => {
    if (!undone.length) return false;
    list.push(...undone.pop());
    changed("redo");
    return true;
  };

  // The edits in 32 bits, by which the browser knows those that were saved last (FNV-1a).
  const digest = () => {
    let hash = 0x811c9dc5;
    const text = JSON.stringify(list);
    for (let k = 0; k < text.length; k++) {
      hash = Math.imul(hash ^ text.charCodeAt(k), 0x01000193);
    }
    return String(hash >>> 0);
  };
  let saved = null;
  const markSaved = () => {
    saved = digest();
    try {
      localStorage.setItem(savedKey(), saved);
    } catch {
      // known as long as the page is open
    }
  };
  UIC.unsaved = () => list.length > 0 && digest() !== saved;
  UIC.unkept = () => refused && UIC.unsaved(); // the page alone has them

  UIC.download = (text, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  UIC.saveEdits = () => {
    UIC.download(JSON.stringify(record(), null, 1), "edits.json");
    markSaved();
    for (const listener of listeners) listener("save");
  };

  const check = (data) => {
    if (data?.format !== FORMAT || !Array.isArray(data.edits)) {
      throw new Error("this is no file of edits");
    }
    if (data.version !== VERSION) {
      throw new Error(data.version === undefined ? "it names no version" : `its version is ${data.version}`);
    }
    if (data.labels?.fingerprint !== UIC.store.fingerprint) {
      throw new Error(`it belongs to another label file (${data.labels?.file ?? "unknown"})`);
    }
    const isClass = (c) => Number.isInteger(c) && c >= 0 && c < MOST_CLASSES;
    const arePaths = (paths) => Array.isArray(paths) && paths.every((p) => typeof p === "string");
    const valid = {
      name: (e) => isClass(e.class) && typeof e.name === "string",
      merge: (e) => Array.isArray(e.classes) && e.classes.every(isClass) && isClass(e.into),
      split: (e) =>
        isClass(e.class) &&
        Array.isArray(e.parts) &&
        e.parts.every((part) => isClass(part?.class) && arePaths(part.images)),
      move: (e) => arePaths(e.images) && isClass(e.to),
      wrong: (e) => arePaths(e.images) && typeof e.wrong === "boolean",
      hide: (e) => isClass(e.class) && typeof e.hidden === "boolean",
    };
    data.edits.forEach((edit, number) => {
      if (!Object.hasOwn(valid, edit?.do) || !valid[edit.do](edit)) {
        throw new Error(`edit ${number + 1} of it is broken`);
      }
    });
    return data.edits;
  };

  // A page of a sample does not know all images of the label file.
  const checkPaths = (edits) => {
    if (UIC.store.sampled) return;
    for (const [number, edit] of edits.entries()) {
      const paths = [...(edit.images ?? []), ...(edit.parts ?? []).flatMap((part) => part.images)];
      const unknown = paths.find((path) => UIC.indexOfPath(path) === undefined);
      if (unknown !== undefined) {
        throw new Error(`edit ${number + 1} of it is of ${unknown}, which is not here`);
      }
    }
  };

  // Take the edits of a file in place of those at hand.
  UIC.loadEdits = async (text) => {
    let data;
    try {
      data = JSON.parse(text);
    } catch {
      throw new Error("this is no JSON file");
    }
    const edits = check(data);
    await UIC.needPaths();
    checkPaths(edits);
    list.splice(0, list.length, ...edits);
    undone.length = 0;
    markSaved();
    changed("load");
    return list.length;
  };

  // Put the edits that the browser keeps aside, and never over others that were put there.
  const putAside = (error) => {
    const place = (number) => `uic-unread:${UIC.store.fingerprint}:${number}`;
    let number = 1;
    while (localStorage.getItem(place(number)) !== null) number++;
    localStorage.setItem(place(number), keptText);
    localStorage.removeItem(key());
    const text = keptText;
    keptText = null;
    return { text, reason: error.message };
  };

  // Take the edits that the browser keeps; those that this page cannot read are returned as text.
  UIC.openEdits = async () => {
    UIC.state = play();
    try {
      saved = localStorage.getItem(savedKey());
    } catch {
      return; // a browser that keeps nothing
    }
    keptText = kept();
    if (!keptText) return;
    let edits = [];
    try {
      edits = check(JSON.parse(keptText));
    } catch (error) {
      return putAside(error);
    }
    if (edits.some((edit) => edit.images || edit.parts)) await UIC.needPaths();
    list.push(...edits);
    try {
      UIC.state = play();
    } catch (error) {
      list.length = 0; // edits of another label file
      UIC.state = play();
      return putAside(error);
    }
  };
}
