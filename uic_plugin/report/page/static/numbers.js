// Numbers of classes and images: sizes, means, centers, neighbours, k-means.
"use strict";

{
  let version = null;
  let cache = {};
  const cached = (name, make) => {
    if (version !== UIC.state) {
      version = UIC.state;
      cache = {};
    }
    return (cache[name] ??= make());
  };

  const mean = (c, column, place) => {
    const members = UIC.state.members.get(c);
    const rest = UIC.state.rest.get(c);
    if (!column) return NaN;
    let sum = rest ? rest[place] : 0;
    for (const i of members) sum += column[i];
    return sum / (members.length + (rest ? rest[0] : 0));
  };

  // Size and means of a class, of all its images, shown or not.
  UIC.numbersOf = (c) =>
    cached(`numbers ${c}`, () => ({
      size: UIC.state.members.get(c).length + (UIC.state.rest.get(c)?.[0] ?? 0),
      confidence: mean(c, UIC.store.confidence, 1),
      entropy: mean(c, UIC.store.entropy, 2),
      stable: UIC.store.agreement ? mean(c, agreements(), 3) : keptOf(c),
    }));

  // Share of today's images that were in the class at the snapshot before the last.
  const keptOf = (c) => {
    const history = UIC.store.history;
    if (!history || !history.kept[c] || history.epochs.length < 2) return NaN;
    return history.kept[c].at(-2);
  };

  // Share of the heads whose class of an image is its class after merges. Other edits change nothing:
  // a head has no say about a class that people have made. Needs the heads that the label file has,
  // once there is a merge.
  const agreements = () =>
    cached("agreement", () => {
      const { agreement, headLabels, label } = UIC.store;
      const heads = Object.values(headLabels ?? {});
      const merges = UIC.edits.list.filter((edit) => edit.do === "merge");
      if (!heads.length || !merges.length) return agreement;
      const merged = new Set(merges.flatMap((edit) => [...edit.classes, edit.into]));
      return agreement.map((share, i) => {
        if (!merged.has(label[i])) return share;
        const own = UIC.currentOf(label[i]);
        const agree = heads.filter((head) => UIC.followed(head[i]) === own).length;
        return agree / heads.length;
      });
    });
  UIC.agreementOf = (i) => agreements()[i];

  UIC.nameOf = (c) => UIC.state.names.get(c) ?? `Class ${c}`;
  UIC.isCalled = (c, text) =>
    UIC.nameOf(c).toLowerCase().includes(text) || String(c) === text; // `text` in lower case
  UIC.isWhole = (c) => !UIC.state.rest.has(c);

  UIC.colourOf = (c) => {
    const hue = (c * 137.508) % 360;
    return `hsl(${hue.toFixed(1)} ${c % 2 ? 72 : 60}% ${[52, 62, 45][c % 3]}%)`;
  };

  const by = (members, value) => {
    const keyed = members.map((i) => [value(i), i]);
    keyed.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return keyed.map((pair) => pair[1]);
  };

  // Members of a class in an order: typical, borderline, uncertain, elsewhere; null where the
  // label file has no numbers for it.
  UIC.ordered = (c, order) =>
    cached(`order ${order} ${c}`, () => {
      const store = UIC.store;
      const members = UIC.state.members.get(c);
      if (order === "typical") {
        if (store.confidence) return by(members, (i) => -store.confidence[i]);
        return store.features ? by(members, (i) => ownDistance(i, c)) : members;
      }
      if (order === "uncertain") {
        if (store.entropy) return by(members, (i) => -store.entropy[i]);
        return store.confidence ? by(members, (i) => store.confidence[i]) : null;
      }
      if (order === "elsewhere") {
        if (!store.agreement) return null;
        const agree = agreements();
        return by(members.filter((i) => agree[i] < 0.999), (i) => agree[i]);
      }
      if (store.secondConfidence && store.confidence) {
        return by(members, (i) => store.confidence[i] - store.secondConfidence[i]);
      }
      return store.features ? by(members, (i) => margin(i, c)) : null;
    });

  const distance = (i, center) => {
    const { values, width } = UIC.store.features;
    let sum = 0;
    for (let d = 0, at = i * width; d < width; d++, at++) {
      const difference = values[at] - center[d];
      sum += difference * difference;
    }
    return sum;
  };

  const centerOf = (members) => {
    const { values, width } = UIC.store.features;
    const center = new Float32Array(width);
    for (const i of members) {
      for (let d = 0, at = i * width; d < width; d++, at++) center[d] += values[at];
    }
    for (let d = 0; d < width; d++) center[d] /= members.length || 1;
    return center;
  };

  const centers = () =>
    cached("centers", () => {
      const shown = UIC.state.ids.filter((c) => UIC.state.members.get(c).length);
      return new Map(shown.map((c) => [c, centerOf(UIC.state.members.get(c))]));
    });

  const between = (a, b) => a.reduce((sum, value, d) => sum + (value - b[d]) ** 2, 0);
  const ownDistance = (i, c) => distance(i, centers().get(c));

  const margin = (i, c) => {
    const near = UIC.neighbours(c, 8);
    const other = Math.min(...near.map((n) => distance(i, centers().get(n.id))));
    return other - ownDistance(i, c);
  };

  // The classes nearest to a class: by the centers of their features, else by how many of its
  // images have them as second-best class.
  UIC.neighbours = (c, count) =>
    cached(`neighbours ${c} ${count}`, () => {
      const store = UIC.store;
      if (store.features && centers().has(c)) {
        const own = centers().get(c);
        const others = [...centers()].filter(([id]) => id !== c);
        return others
          .map(([id, center]) => ({ id, value: Math.sqrt(between(own, center)), kind: "center" }))
          .sort((a, b) => a.value - b.value)
          .slice(0, count);
      }
      if (!store.second) return [];
      const votes = new Map();
      const members = UIC.state.members.get(c);
      for (const i of members) {
        const id = UIC.followed(store.second[i]);
        if (id !== c && UIC.state.members.has(id)) votes.set(id, (votes.get(id) ?? 0) + 1);
      }
      return [...votes]
        .map(([id, votes]) => ({ id, value: votes / members.length, kind: "second" }))
        .sort((a, b) => b.value - a.value)
        .slice(0, count);
    });

  // Where a class of the label file has gone in merges.
  UIC.currentOf = (c) =>
    cached("current", () => {
      const gone = new Map();
      for (const edit of UIC.edits.list) {
        if (edit.do !== "merge") continue;
        for (const [from, to] of gone) if (edit.classes.includes(to)) gone.set(from, edit.into);
        for (const from of edit.classes) if (from !== edit.into) gone.set(from, edit.into);
      }
      return gone;
    }).get(c) ?? c;

  // Where a class that a further column names (`second` or a head's) has gone, as `uic labels apply`
  // has it: -1 for a number above the label file's, which can be that of a new class by now.
  UIC.followed = (c) => (c <= UIC.store.lastClass ? UIC.currentOf(c) : -1);

  UIC.similar = (i, count) => {
    const { values, width } = UIC.store.features;
    const own = values.slice(i * width, (i + 1) * width);
    const best = [];
    for (let j = 0; j < UIC.store.count; j++) {
      if (j === i) continue;
      const d = distance(j, own);
      if (best.length < count || d < best.at(-1)[0]) {
        let at = best.length;
        while (at > 0 && best[at - 1][0] > d) at--;
        best.splice(at, 0, [d, j]);
        if (best.length > count) best.pop();
      }
    }
    return best.map((pair) => pair[1]);
  };

  // A generator of numbers in [0, 1) with a seed (mulberry32), so that a split can be repeated.
  const random = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  // Groups of images by k-means of their components, the best of five starts, largest first.
  UIC.kMeans = (members, groups) => {
    let best = null;
    for (let start = 0; start < 5; start++) {
      const found = oneKMeans(members, groups, random(start + 1));
      if (!best || found.inertia < best.inertia) best = found;
    }
    return best.parts.filter((part) => part.length).sort((a, b) => b.length - a.length);
  };

  const oneKMeans = (members, groups, draw) => {
    const { values, width } = UIC.store.features;
    const row = (i) => Float32Array.from(values.subarray(i * width, (i + 1) * width));
    const found = [row(members[Math.floor(draw() * members.length)])];
    const gap = members.map(() => Infinity);
    while (found.length < groups) {
      // k-means++: the next start is drawn by squared distance to the nearest one so far
      let total = 0;
      members.forEach((i, j) => {
        gap[j] = Math.min(gap[j], distance(i, found.at(-1)));
        total += gap[j];
      });
      let left = draw() * total;
      const next = gap.findIndex((d) => (left -= d) <= 0);
      found.push(row(members[Math.max(next, 0)]));
    }
    let parts = [];
    let inertia = Infinity;
    for (let round = 0; round < 30; round++) {
      parts = found.map(() => []);
      let sum = 0;
      for (const i of members) {
        let nearest = 0;
        let least = Infinity;
        for (let k = 0; k < groups; k++) {
          const d = distance(i, found[k]);
          if (d < least) [nearest, least] = [k, d];
        }
        parts[nearest].push(i);
        sum += least;
      }
      if (sum >= inertia * (1 - 1e-6)) break;
      inertia = sum;
      parts.forEach((part, k) => part.length && (found[k] = centerOf(part)));
    }
    return { parts, inertia };
  };

  // Images of a class in each annotated folder, [folder, count], largest first.
  UIC.foldersOf = (c) =>
    cached(`folders ${c}`, () => {
      const counts = new Map();
      for (const i of UIC.state.members.get(c)) {
        const folder = UIC.store.folderOf[i];
        counts.set(folder, (counts.get(folder) ?? 0) + 1);
      }
      return [...counts].sort((a, b) => b[1] - a[1]);
    });
}
