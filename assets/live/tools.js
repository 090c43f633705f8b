// Zoom, pan, wipe and error map: over all tiles at once, in the browser alone.

const GAINS = [1, 2, 5, 10, 20];
const ZOOM_MOST = 32;

/** Zoom by a factor keeping the image point under (fx, fy), fractions of the tile, in its place. */
function zoomBy(view, factor, fx = 0.5, fy = 0.5) {
  const { zoom } = view;
  const k = Math.min(ZOOM_MOST, Math.max(1, zoom.k * factor));
  zoom.cx += (fx - 0.5) * (1 / zoom.k - 1 / k);
  zoom.cy += (fy - 0.5) * (1 / zoom.k - 1 / k);
  zoom.k = Math.abs(k - 1) < 0.01 ? 1 : k;
  limitZoom(view);
}

function panBy(view, dx, dy) {
  view.zoom.cx -= dx / view.zoom.k;
  view.zoom.cy -= dy / view.zoom.k;
  limitZoom(view);
}

function limitZoom(view) {
  const half = 0.5 / view.zoom.k;
  for (const c of ["cx", "cy"]) view.zoom[c] = Math.min(1 - half, Math.max(half, view.zoom[c]));
  mark(view, "tools", "text", "tiles");
}

function setWipe(view, fraction) {
  view.wipe = Math.min(1, Math.max(0, fraction));
  view.refs.wipe.value = String(Math.round(view.wipe * 100));
  mark(view, "text", "tiles");
}

/** Drag (or the arrow keys) pans a zoomed picture, or moves the divider (near it, or anywhere when nothing can be panned); two fingers or Ctrl + wheel zoom. */
function wirePicture(view, tile) {
  const pointers = new Map();
  const fraction = (event) => { const box = tile.canvas.getBoundingClientRect(); return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]; };
  const listen = (type, handler, options) => tile.picture.addEventListener(type, handler, options);
  let mode = null;
  let spread = 0;
  listen("pointerdown", (event) => {
    const [fx, fy] = fraction(event);
    pointers.set(event.pointerId, [fx, fy]);
    if (pointers.size === 2) { mode = "pinch"; spread = pinchSpread(pointers); return; }
    const wiping = view.wipe < 1 && (view.zoom.k === 1 || Math.abs(fx - view.wipe) < 0.06);
    mode = wiping ? "wipe" : view.zoom.k > 1 ? "pan" : null;
    if (mode) { tile.picture.setPointerCapture(event.pointerId); event.preventDefault(); }
    if (mode === "wipe") setWipe(view, fx);
  });
  listen("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = fraction(event);
    pointers.set(event.pointerId, now);
    if (mode === "wipe") setWipe(view, now[0]);
    else if (mode === "pan") panBy(view, now[0] - before[0], now[1] - before[1]);
    else if (mode === "pinch") { const wide = pinchSpread(pointers); zoomBy(view, wide / spread, now[0], now[1]); spread = wide; }
  });
  const end = (event) => { pointers.delete(event.pointerId); if (!pointers.size || mode === "pinch") mode = null; };
  listen("pointerup", end);
  listen("pointercancel", end);
  listen("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key] ?? [];
    if (dx === undefined || view.zoom.k === 1) return;
    event.preventDefault(); // or the arrows would scrub
    panBy(view, dx, dy);
  });
  listen("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoomBy(view, Math.exp(-event.deltaY / 200), ...fraction(event));
  }, { passive: false });
}

function pinchSpread(pointers) {
  const [a, b] = [...pointers.values()];
  return Math.hypot(a[0] - b[0], a[1] - b[1]) || 1e-3;
}

function wireTools(view) {
  const { refs } = view;
  refs.zoomIn.addEventListener("click", () => zoomBy(view, 2));
  refs.zoomOut.addEventListener("click", () => zoomBy(view, 0.5));
  refs.zoomReset.addEventListener("click", () => { Object.assign(view.zoom, { k: 1, cx: 0.5, cy: 0.5 }); limitZoom(view); });
  refs.wipe.addEventListener("input", () => setWipe(view, refs.wipe.value / 100));
  refs.spread.addEventListener("click", () => { view.spread = !view.spread; view.error = false; drawLegend(view); mark(view, "tools", "tiles"); });
  refs.error.addEventListener("click", () => { view.error = !view.error; view.spread = false; drawLegend(view); mark(view, "tools", "tiles"); });
  refs.gain.addEventListener("click", () => { view.gain = GAINS[(GAINS.indexOf(view.gain) + 1) % GAINS.length]; drawLegend(view); mark(view, "tiles"); });
  drawLegend(view);
}

function updateTools(view) {
  const { refs, zoom, state } = view;
  const truth = Boolean(state.strip.truth);
  setText(refs.zoomText, `${zoom.k.toFixed(1)}×`);
  refs.zoomOut.disabled = zoom.k === 1;
  refs.zoomReset.disabled = zoom.k === 1;
  refs.zoomIn.disabled = zoom.k >= ZOOM_MOST;
  refs.wipe.disabled = refs.error.disabled = !truth;
  if (!truth) { view.error = false; view.wipe = 1; refs.wipe.value = "100"; }
  refs.spread.hidden = !(state.seeds > 1 || state.lanes.some((lane) => lane.spread));
  refs.spread.disabled = !state.lanes.some((lane) => lane.spread);
  if (refs.spread.disabled) view.spread = false;
  refs.spread.setAttribute("aria-pressed", String(view.spread));
  refs.error.setAttribute("aria-pressed", String(view.error));
  refs.legend.toggleAttribute("data-on", view.error || view.spread);
  refs.legend.toggleAttribute("data-spread", view.spread);
  for (const tool of refs.root.querySelectorAll(".np-truthtool")) {
    tool.toggleAttribute("data-off", !truth);
    tool.title = truth ? "" : "There is no ground truth to compare with.";
  }
  refs.error.title = truth ? "How far each pixel is from the truth" : "There is no ground truth to compare with.";
}
