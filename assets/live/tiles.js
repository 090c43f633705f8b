// The tiles: one lane each. Built once per race; afterwards only texts and canvases change.

const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const NUMBERS = [["psnr", "PSNR", "np-ifpsnr"], ["best", "best", "np-ifpsnr"], ["ssim", "SSIM", "np-ifpsnr"], ["residual", "residual", "np-ifnone"], ["rate", "it/s", ""]];

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A sample of a lane's line, as it is drawn in the curves. */
function lineSample(index) {
  const box = make("span", "");
  box.innerHTML = `<svg viewBox="0 0 28 8" aria-hidden="true"><path d="M0 4h28" stroke-dasharray="${DASHES[index].join(" ")}"/></svg>`;
  return box.firstChild;
}

/** Make the tiles of the state's lanes, unless they are there already. */
function buildTiles(view) {
  const lanes = view.state.lanes.slice(0, 4);
  const key = JSON.stringify([view.state.run, view.state.type, lanes.map((lane) => lane.id)]);
  if (key === view.tilesKey) return;
  view.tilesKey = key;
  const count = Math.max(1, lanes.length);
  view.refs.root.dataset.columns = count === 3 ? "3" : "4";
  view.refs.tiles.dataset.count = String(lanes.length ? count : 2);
  const old = view.tiles;
  view.tiles = lanes.map((lane, index) => old[index] ?? makeTile(view, index)); // a tile is kept: its place on the screen does not flash
  for (const tile of old.slice(lanes.length)) { view.resize.unobserve(tile.canvas); boxes.delete(tile.canvas); }
  view.refs.tiles.replaceChildren(...view.tiles.map((tile) => tile.node), ...(lanes.length ? [] : emptyTiles(2)));
}

/** Where tiles will be, before any lane is known. */
function emptyTiles(number) {
  return Array.from({ length: number }, (_, i) => {
    const message = make("p", "np-message", i ? "" : "Choose a target and one to four methods, then press Run.");
    message.dataset.fill = "";
    return make("div", "np-tile", make("div", "np-head"), make("div", "np-picture", message));
  });
}

function makeTile(view, index) {
  const nodes = { name: make("span", "np-name"), state: make("span", "np-state"), detail: make("span", "np-detail np-caption"), iteration: make("span"), exact: make("span"), message: make("p", "np-message"), note: make("p", "np-note") };
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  const picture = make("div", "np-picture", canvas, nodes.message);
  const numbers = make("dl", "np-numbers");
  for (const [key, label, className] of NUMBERS) {
    nodes[key] = make("dd", "");
    nodes[key + "Row"] = make("div", className, make("dt", "", label), nodes[key]);
    numbers.append(nodes[key + "Row"]);
  }
  const node = make("div", "np-tile", make("div", "np-head", lineSample(index), nodes.name, nodes.state, nodes.detail), picture, make("div", "np-sub", nodes.iteration, nodes.exact), numbers, nodes.note);
  node.dataset.lane = String(index);
  node.setAttribute("role", "listitem");
  const tile = { index, node, canvas, picture, nodes, slot: null, errorKey: null };
  tile.slot = makeSlot(() => mark(view, "tiles"));
  tile.spread = makeSlot(() => mark(view, "tiles"));
  view.resize.observe(canvas);
  wirePicture(view, tile);
  return tile;
}

/** The picture a lane shows now: live, or at the hovered or pinned position. */
function shownPicture(view, lane) {
  const position = view.hover ?? view.position;
  if (!position) return lane.picture ?? lastFrame(view.state, lane.id);
  const exact = !view.hover && view.exact?.key === positionKey(position) ? view.exact.frames.get(lane.id) : null;
  if (exact) return exact;
  const iteration = iterationAt(view.state, lane.id, position);
  return (iteration === null ? null : frameAt(view.state, lane.id, iteration)) ?? lane.picture ?? null;
}

function lastFrame(state, lane) {
  return state.frames.get(lane)?.at(-1) ?? null;
}

function positionKey(position) {
  return position ? `${position.axis}:${position.value}` : "";
}

/** Texts of all tiles, and which picture each should hold. */
function updateTiles(view) {
  view.tiles.forEach((tile, index) => {
    const lane = view.state.lanes[index];
    const picture = lane.state === "refused" ? null : shownPicture(view, lane);
    wantPicture(tile.slot, picture?.src ?? null);
    wantPicture(tile.spread, lane.spread ?? null);
    tile.kind = picture?.kind ?? "estimate";
    tile.node.toggleAttribute("data-refused", lane.state === "refused");
    const scrubbed = Boolean(view.hover ?? view.position) && picture && tile.kind !== "shots";
    writeHead(tile, lane, picture, scrubbed, view.state);
    writeNumbers(view, tile, lane, scrubbed ? picture : null);
    writeMessage(view, tile, lane, picture);
    const drag = view.wipe < 1 && view.zoom.k === 1 ? "wipe" : view.zoom.k > 1 ? "pan" : "";
    if (drag) tile.picture.dataset.drag = drag;
    else delete tile.picture.dataset.drag;
    if (view.zoom.k > 1) Object.assign(tile.picture, { tabIndex: 0, role: "group", ariaLabel: `${lane.name}, zoomed: arrow keys move the pictures` });
    else for (const name of ["tabindex", "role", "aria-label"]) tile.picture.removeAttribute(name);
  });
}

function writeHead(tile, lane, picture, scrubbed, { state, seeds }) {
  const { nodes } = tile;
  setText(nodes.name, lane.name ?? "");
  nodes.name.title = lane.name ?? "";
  setText(nodes.detail, lane.detail ?? "");
  nodes.detail.title = lane.detail ?? "";
  setText(nodes.state, state === "paused" && lane.state === "running" ? "paused" : laneWord(lane));
  nodes.state.hidden = [state, "ready"].includes(nodes.state.textContent); // the status line says it: more room for the name
  const at = scrubbed ? picture.iteration : lane.iteration;
  const total = lane.total ? ` / ${count(lane.total)}` : "";
  setText(nodes.iteration, lane.state === "refused" || lane.state === "ready" ? "" : lane.state === "preparing" && !scrubbed ? `${count(lane.iteration)}${total}` : `it ${count(at)}${total}`);
  setText(nodes.exact, !picture?.src ? "" : picture.kind === "shots" ? "shots, as drawn now" : (picture.lossless ? "exact" : "preview (jpeg)") + (seeds > 1 ? `, run 1 of ${seeds}` : ""));
  tile.canvas.setAttribute("aria-label", `${lane.name}: reconstruction${picture?.iteration ? ` at iteration ${picture.iteration}` : ""}`);
}

/** Numbers describe the picture that is shown: live, or the one scrubbed to, by its own scores where it came with them. */
function writeNumbers(view, tile, lane, picture) {
  const { state } = view;
  const at = (metric) => (picture ? picture[metric] ?? pointAt(state, lane.id, metric, picture.iteration)?.[2] : lane[metric]);
  writeNumber(tile.nodes.psnr, fixed(at("psnr"), 2), "dB");
  writeNumber(tile.nodes.ssim, fixed(at("ssim"), 3), "");
  writeNumber(tile.nodes.residual, compact(at("residual")), "");
  writeNumber(tile.nodes.best, fixed(lane.best?.psnr, 2), lane.best ? `@ ${count(lane.best.iteration)}` : "");
  writeNumber(tile.nodes.rate, rate(lane.rate), "");
  tile.nodes.residualRow.hidden = hasTruth(state);
  const idle = lane.state === "refused";
  tile.node.querySelector(".np-numbers").style.visibility = idle ? "hidden" : "";
}

function writeNumber(node, value, unit) {
  if (value === NONE) unit = "";
  const text = unit ? `${value} ${unit}` : value;
  if (node.dataset.text === text) return;
  node.dataset.text = text;
  node.replaceChildren(value, ...(unit ? [" ", make("small", "", unit)] : []));
}

function writeMessage(view, tile, lane, picture) {
  const { message } = tile.nodes;
  const failed = lane.state === "failed" || lane.state === "refused";
  const waiting = { preparing: phaseOf(lane), ready: view.state.type === "setup" ? "Ready to run." : view.state.state === "waiting" ? "Waiting for its turn." : "Ready." }[lane.state] ?? "";
  const note = failed || !picture?.src ? "" : lane.message || ""; // beside the picture: it must not hide what it speaks of
  setText(tile.nodes.note, note);
  tile.nodes.note.title = note;
  const text = note ? "" : lane.message || (failed ? "This method gave no reason." : picture?.src ? "" : waiting);
  setText(message, text);
  message.hidden = !text;
  message.toggleAttribute("data-fill", !picture?.src || lane.state === "refused");
  if (lane.state === "failed") message.dataset.tone = "alert";
  else delete message.dataset.tone;
}

/** Canvases of all tiles: picture or error map, then the truth right of the divider. */
function paintTiles(view) {
  for (const tile of view.tiles) {
    const { context, width, height, ratio } = fitCanvas(tile.canvas);
    context.clearRect(0, 0, width, height);
    if (!hasPicture(tile.slot)) continue;
    const comparable = hasPicture(view.truth) && hasTruth(view.state) && tile.kind !== "shots";
    const source = view.spread && hasPicture(tile.spread) ? tile.spread.canvas : view.error && comparable ? errorPicture(tile, view.truth, view.gain) : tile.slot.canvas;
    drawPlaced(context, source, placement(view.zoom, source.width, source.height, width, height), ratio);
    if (view.wipe < 1 && comparable) paintTruth(view, context, width, height, ratio);
  }
}

function paintTruth(view, context, width, height, ratio) {
  const edge = Math.round(view.wipe * width);
  const { canvas } = view.truth;
  context.save();
  context.beginPath();
  context.rect(edge, 0, width - edge, height);
  context.clip();
  context.clearRect(edge, 0, width - edge, height);
  drawPlaced(context, canvas, placement(view.zoom, canvas.width, canvas.height, width, height), ratio);
  context.restore();
  context.fillStyle = view.colours.paper;
  context.fillRect(edge - 1.5 * ratio, 0, 3 * ratio, height);
  context.fillStyle = view.colours.accent;
  context.fillRect(edge - 0.5 * ratio, 0, ratio, height);
  paintSymbol(view, context, "x̂", edge - 18 * ratio, height, ratio);
  paintSymbol(view, context, "x", edge + 4 * ratio, height, ratio);
}

function paintSymbol(view, context, symbol, x, height, ratio) {
  const size = 14 * ratio;
  context.fillStyle = view.colours.paper;
  context.fillRect(x, height - size - 8 * ratio, size, size + 4 * ratio);
  context.fillStyle = view.colours.ink;
  context.font = `italic ${14 * ratio}px ${view.colours.serif}`;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.fillText(symbol, x + size / 2, height - 9 * ratio);
}
