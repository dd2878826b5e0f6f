// What the map needs of its points: pictures, a grid to find them in, what a drawn line encloses.
"use strict";

{
  UIC.CELLS = 128; // cells of the grid in each direction

  // A file of thumbnails as an image that a canvas can draw; null until it is loaded.
  const sheets = new Map();
  UIC.sheet = (url, redraw) => {
    if (!sheets.has(url)) {
      const image = new Image();
      image.onload = redraw;
      image.src = url;
      sheets.set(url, image);
    }
    const image = sheets.get(url);
    return image.complete && image.naturalWidth ? image : null;
  };

  // Images by the cell of the grid that they lie in.
  UIC.cellsOf = (x, y) => {
    const cells = new Map();
    for (let i = 0; i < x.length; i++) {
      const cell = Math.floor((x[i] / 65536) * UIC.CELLS) * UIC.CELLS + Math.floor((y[i] / 65536) * UIC.CELLS);
      if (!cells.has(cell)) cells.set(cell, []);
      cells.get(cell).push(i);
    }
    return cells;
  };

  // Whether a point lies within a polygon.
  UIC.inside = (polygon, px, py) => {
    let odd = false;
    for (let k = 0, j = polygon.length - 1; k < polygon.length; j = k++) {
      const [ax, ay] = polygon[k];
      const [bx, by] = polygon[j];
      if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  };
}
