// What the page knows of its images. Scripts hand data over with UIC.give, because a page that is
// opened from a disk may load scripts and images, but may not read other files.
"use strict";

const UIC = {};

{
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const waiting = new Map();
  const given = new Map();

  UIC.files = here;

  UIC.give = (name, data) => {
    given.set(name, data);
    waiting.get(name)?.resolve(data);
  };

  // Data of files/NAME.js, loaded when it is first asked for.
  UIC.need = (name) => {
    if (given.has(name)) return Promise.resolve(given.get(name));
    if (!waiting.has(name)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      waiting.set(name, entry);
      const script = document.createElement("script");
      script.src = `${here}${name}.js`;
      script.onerror = () => entry.reject(new Error(`files/${name}.js is missing`));
      document.head.append(script);
    }
    return waiting.get(name).promise;
  };

  const bytes = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const out = new Uint8Array(binary.length);
    for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
    return out;
  };

  UIC.decode = (text, Kind) => (text === undefined ? null : new Kind(bytes(text).buffer));

  UIC.openStore = () => {
    const core = given.get("core");
    const store = {
      ...core,
      count: core.shown,
      label: UIC.decode(core.label, Int32Array),
      confidence: UIC.decode(core.confidence, Float32Array),
      entropy: UIC.decode(core.entropy, Float32Array),
      agreement: UIC.decode(core.agreement, Float32Array),
      distance: UIC.decode(core.distance, Float32Array),
      second: UIC.decode(core.second, Int32Array),
      secondConfidence: UIC.decode(core.second_confidence, Float32Array),
      wrong: UIC.decode(core.wrong, Uint8Array),
      unreadable: new Set(core.unreadable),
      paths: null,
      features: null,
      headLabels: null,
    };
    if (core.folders) {
      store.folderNames = core.folders.names;
      store.folderOf = UIC.decode(core.folders.of, Int32Array);
    }
    if (core.map) {
      store.x = UIC.decode(core.map.x, Uint16Array);
      store.y = UIC.decode(core.map.y, Uint16Array);
    }
    const unseen = Object.keys(core.rest).map(Number); // classes of images not shown
    store.lastClass = [...store.label, ...unseen].reduce((most, c) => Math.max(most, c), -1);
    store.sampled = core.shown < core.images;
    UIC.store = store;
  };

  // Whether there is an image of this number: an address may name any.
  UIC.isImage = (i) => Number.isInteger(i) && i >= 0 && i < UIC.store.count;

  UIC.needPaths = async () => {
    UIC.store.paths ??= await UIC.need("paths");
    return UIC.store.paths;
  };

  UIC.needFeatures = async () => {
    if (!UIC.store.map) return null;
    if (!UIC.store.features) {
      const data = await UIC.need("features");
      UIC.store.features = {
        width: data.width,
        kept: data.kept,
        values: UIC.decode(data.values, Int8Array),
      };
    }
    return UIC.store.features;
  };

  UIC.needHeads = async () => {
    if (!UIC.store.heads.length) return {};
    if (!UIC.store.headLabels) {
      const data = await UIC.need("heads");
      UIC.store.headLabels = Object.fromEntries(
        Object.entries(data).map(([name, text]) => [name, UIC.decode(text, Int32Array)]),
      );
    }
    return UIC.store.headLabels;
  };

  // Index of a path; the table is made when it is first needed.
  let places = null;
  UIC.indexOfPath = (path) => {
    places ??= new Map(UIC.store.paths.map((name, i) => [name, i]));
    return places.get(path);
  };

  // The address of an original. Bytes of a name that are no UTF-8 come as lone surrogates
  // U+DC80..U+DCFF, which encodeURIComponent refuses.
  const encode = (text) =>
    text
      .split("/")
      .map((part) =>
        part.replace(/[\ud800-\udbff][\udc00-\udfff]|[^]/gu, (c) => {
          const code = c.codePointAt(0);
          if (code >= 0xdc80 && code <= 0xdcff) return `%${(code - 0xdc00).toString(16)}`;
          return code >= 0xd800 && code <= 0xdfff ? "%EF%BF%BD" : encodeURIComponent(c);
        }),
      )
      .join("/");

  UIC.original = (i) => `${encode(UIC.store.folder)}/${encode(UIC.store.paths[i])}`;

  UIC.sprite = (i) => {
    const { side, suffix } = UIC.store.sprites;
    const perFile = side * side;
    const file = Math.floor(i / perFile);
    const place = i % perFile;
    const rows = Math.ceil(Math.min(perFile, UIC.store.count - file * perFile) / side);
    return {
      url: `${here}sprites/${file}${suffix}`,
      column: place % side,
      row: Math.floor(place / side),
      side,
      rows,
    };
  };
}
