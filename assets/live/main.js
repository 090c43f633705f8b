// Ties the parts together: a message changes the state, the state marks what is dirty, one animation frame draws it.

/** Ask for parts to be drawn at the next frame of the screen: any of strip, tools, text, tiles, curves, transport. */
function mark(view, ...parts) {
  for (const part of parts) view.dirty.add(part);
  if (!view.frame) view.frame = requestAnimationFrame(() => draw(view));
}

function draw(view) {
  view.frame = null;
  if (!view.element.isConnected) return dispose(view);
  const dirty = new Set(view.dirty);
  view.dirty.clear();
  if (dirty.has("tools")) updateTools(view);
  if (dirty.has("transport")) updateTransport(view);
  if (dirty.has("text")) { updateTiles(view); updateTimeline(view); }
  if (dirty.has("strip")) paintStrip(view);
  if (dirty.has("tiles")) paintTiles(view);
  if (dirty.has("curves")) { updateTabs(view); paintCurves(view); }
}

/** A value of the component: a message, or its JSON text. */
function receive(view, value) {
  const message = typeof value === "string" && value ? JSON.parse(value) : value;
  const before = view.state.state;
  const changed = mergeMessage(view.state, message);
  if (!changed) return;
  view.messages += 1;
  if (view.early) startRun(view);
  if (message.hide) applyHide(view, message.hide);
  view.notice = "";
  if (view.pending === "run" ? message.type === "race" || message.note : view.state.state !== before) view.pending = null; // it happened, whether or not the answer is here
  if (changed.run) {
    Object.assign(view, { position: null, hover: null, exact: null });
    if (!view.axisChosen) view.axis = view.state.schedule === "clock" ? "seconds" : "iteration";
  }
  if (changed.strip || changed.run) updateStrip(view);
  buildTiles(view);
  updateTable(view);
  mark(view, "tools", "transport", "text", "tiles", "curves");
}

/** Colours from the style sheet, so that light and dark are decided in one place. */
function readColours(view) {
  const style = getComputedStyle(view.refs.root);
  const value = (name) => style.getPropertyValue(name).trim();
  view.colours = {
    paper: value("--np-paper"), ink: value("--np-ink"), muted: value("--np-muted"), line: value("--np-line"), accent: value("--np-accent"),
    lanes: [0, 1, 2, 3].map((lane) => value(`--np-lane-${lane}`)), serif: value("--np-serif") || "serif", sans: style.fontFamily,
  };
}

/** Parts a lesson hides. */
function applyHide(view, hide) {
  for (const part of view.refs.root.querySelectorAll("[data-part]")) part.hidden = (hide ?? []).includes(part.dataset.part);
}

/** Global handlers leave with the element: a page may mount the view again. */
function dispose(view) {
  for (const undo of view.undo.splice(0)) undo();
}

function makeView(element, trigger, server) {
  const refs = Object.fromEntries([...element.querySelectorAll("[data-ref]")].map((node) => [node.dataset.ref, node]));
  const view = {
    element, trigger, server, refs, state: emptyState(), tiles: [], dirty: new Set(), frame: null, undo: [], messages: 0,
    zoom: { k: 1, cx: 0.5, cy: 0.5 }, wipe: 1, error: false, spread: false, gain: 5, metric: "psnr", metricChosen: false, axis: "iteration", axisChosen: false, log: null,
    position: null, hover: null, exact: null, pending: null, notice: "", geometry: null, announcedAt: 0,
  };
  view.listen = (target, type, handler) => {
    const guarded = (event) => (element.isConnected ? handler(event) : dispose(view));
    target.addEventListener(type, guarded);
    view.undo.push(() => target.removeEventListener(type, guarded));
  };
  return view;
}

function watchSurroundings(view) {
  view.resize = new ResizeObserver(() => { boxes.clear(); mark(view, "strip", "tiles", "curves"); });
  view.resize.observe(view.refs.root);
  view.resize.observe(view.refs.plot);
  const theme = new MutationObserver(() => { readColours(view); mark(view, "tiles", "curves"); });
  for (const node of [document.documentElement, document.body]) theme.observe(node, { attributes: true, attributeFilter: ["class"] });
  document.fonts?.ready.then(() => mark(view, "curves"));
  view.undo.push(() => view.resize.disconnect(), () => theme.disconnect());
}

function start(element, trigger, props, server, watch) {
  element.netpriorDispose?.();
  const view = makeView(element, trigger, server);
  element.netpriorDispose = () => dispose(view);
  element.netpriorView = view; // for the tests and the curious: nothing reads it
  view.receive = (value) => receive(view, value);
  readColours(view);
  watchSurroundings(view);
  makeStrip(view);
  wireTools(view);
  wireTransport(view);
  wireCurves(view);
  applyHide(view, props.hide);
  updateStrip(view);
  buildTiles(view);
  mark(view, "tools", "transport", "text", "strip", "curves");
  receive(view, props.value);
  watch("value", () => receive(view, props.value));
  watch("hide", () => applyHide(view, props.hide));
}
