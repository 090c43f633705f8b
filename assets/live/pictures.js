// Pictures: from a data URI to a canvas of the image's own pixels, and what is drawn over a tile.

/** Decode a data URI. Exact pixels: no colour conversion, no premultiplication. Other addresses are refused: nothing is fetched. */
async function decodePicture(src) {
  const match = /^data:(image\/(?:png|jpeg|webp));base64,(.*)$/s.exec(src ?? "");
  if (!match) throw new Error("not an embedded picture");
  return createImageBitmap(new Blob([decodeBase64(match[2])], { type: match[1] }), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** A slot holds the latest wanted picture as a canvas at its own size. One decode at a time; what became stale meanwhile is dropped. */
function makeSlot(onReady) {
  return { canvas: document.createElement("canvas"), wanted: null, shown: null, busy: false, version: 0, onReady };
}

async function wantPicture(slot, src) {
  slot.wanted = src;
  if (slot.busy || slot.shown === src) return;
  slot.busy = true;
  while (slot.wanted !== slot.shown) {
    const src = slot.wanted;
    let bitmap = null;
    try {
      bitmap = src ? await decodePicture(src) : null;
    } catch {
      bitmap = null; // an undecodable picture leaves the tile empty rather than an old picture under a new name
    }
    if (bitmap) {
      if (slot.canvas.width !== bitmap.width || slot.canvas.height !== bitmap.height) [slot.canvas.width, slot.canvas.height] = [bitmap.width, bitmap.height];
      slot.canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
      bitmap.close();
    }
    slot.empty = !bitmap;
    slot.shown = src;
    slot.version += 1;
    slot.onReady();
  }
  slot.busy = false;
}

function hasPicture(slot) {
  return slot.shown !== null && !slot.empty;
}

const boxes = new Map(); // sizes of canvases: asking the browser for them makes it lay the page out again

/** Give a canvas one backing pixel per device pixel. Returns its 2D context and size. */
function fitCanvas(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  if (!boxes.has(canvas)) boxes.set(canvas, canvas.getBoundingClientRect());
  const box = boxes.get(canvas);
  const [width, height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  return { context: canvas.getContext("2d"), width, height, ratio };
}

/** Where an image of w × h lies in a W × H canvas at a zoom {k, cx, cy}: whole at k = 1, never past its own edge beyond that. */
function placement(zoom, w, h, W, H) {
  const scale = Math.min(W / w, H / h) * zoom.k;
  const centre = (c, n, N) => { const half = N / (2 * n * scale); return half >= 0.5 ? 0.5 : Math.min(1 - half, Math.max(half, c)); };
  const [cx, cy] = [centre(zoom.cx, w, W), centre(zoom.cy, h, H)];
  return { scale, x: W / 2 - cx * w * scale, y: H / 2 - cy * h * scale, cx, cy };
}

/** Draw a native-size canvas at a placement; single pixels stay squares once they are two screen pixels wide. */
function drawPlaced(context, source, place, ratio) {
  context.imageSmoothingEnabled = place.scale / ratio < 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, place.x, place.y, source.width * place.scale, source.height * place.scale);
}

const RAMP = Array.from({ length: 256 }, (_, i) => rampColour(i / 255));

/** |x̂ − x| averaged over channels, times the gain, through the ramp; recomputed only when the picture, the truth or the gain changed. */
function errorPicture(tile, truth, gain) {
  const key = `${tile.slot.version}/${truth.version}/${gain}`;
  const { width, height } = tile.slot.canvas;
  if (tile.errorKey === key) return tile.errorCanvas;
  tile.errorCanvas ??= document.createElement("canvas");
  [tile.errorCanvas.width, tile.errorCanvas.height] = [width, height];
  const estimate = tile.slot.canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
  const reference = pixelsAt(truth, width, height);
  const context = tile.errorCanvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let i = 0; i < estimate.length; i += 4) {
    const error = (Math.abs(estimate[i] - reference[i]) + Math.abs(estimate[i + 1] - reference[i + 1]) + Math.abs(estimate[i + 2] - reference[i + 2])) / 3;
    const colour = RAMP[Math.min(255, Math.round(error * gain))];
    [picture.data[i], picture.data[i + 1], picture.data[i + 2], picture.data[i + 3]] = [colour[0], colour[1], colour[2], 255];
  }
  context.putImageData(picture, 0, 0);
  tile.errorKey = key;
  return tile.errorCanvas;
}

/** The truth's pixels at a size; it is the estimate's own size unless a preview was sent smaller. */
function pixelsAt(truth, width, height) {
  if (truth.canvas.width === width && truth.canvas.height === height) {
    return truth.canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
  }
  const scaled = document.createElement("canvas");
  [scaled.width, scaled.height] = [width, height];
  const context = scaled.getContext("2d");
  context.drawImage(truth.canvas, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

function drawLegend(view) {
  const context = view.refs.legendCanvas.getContext("2d");
  RAMP.forEach(([r, g, b], i) => { context.fillStyle = view.spread ? `rgb(${i} ${i} ${i})` : `rgb(${r} ${g} ${b})`; context.fillRect((i * 96) / 256, 0, 1, 8); });
  view.refs.legendTop.textContent = view.spread ? "0.25 std" : (1 / view.gain).toFixed(2);
  view.refs.gain.textContent = `×${view.gain}`;
}
