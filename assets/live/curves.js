// The curves: one canvas, drawn again only when something changed.

const METRICS = { psnr: "PSNR, dB", ssim: "SSIM", residual: "residual ‖A x̂ − y‖ / √m", objective: "each method's own objective", learning: "objective of learning", left_out: "left-out example as it can be drawn, dB" };

/** What the vertical axis shows; one objective for all where the race was made to compare it. */
const metricName = (view) => (view.metric === "objective" && view.state.metric === "objective" ? "objective, the same for all" : METRICS[view.metric]);
const KEY_SHAPES = {
  best: ["M1 8L4.5 1.5L8 8z", true, "best so far"],
  stop: ["M4.5 .8L8.2 4.5L4.5 8.2L.8 4.5z", true, "stopping rule"],
  oracle: ["M4.5 -1L10 4.5L4.5 10L-1 4.5z", false, "oracle: needs the truth"],
  result: ["M4.5 2.5a2 2 0 1 0 .01 0z", true, "what is returned"],
};

function wireCurves(view) {
  const { refs } = view;
  for (const tab of refs.root.querySelectorAll("[data-metric]")) tab.addEventListener("click", () => { view.metric = tab.dataset.metric; view.metricChosen = true; mark(view, "curves"); });
  for (const tab of refs.root.querySelectorAll("[data-axis]")) tab.addEventListener("click", () => setAxis(view, tab.dataset.axis, true));
  refs.log.addEventListener("click", () => { view.log = !logAxis(view); mark(view, "curves"); });
  const locate = (event) => {
    const geometry = view.geometry;
    if (!geometry) return null;
    const x = event.clientX - refs.plot.getBoundingClientRect().left;
    if (x < geometry.left - 8 || x > geometry.right + 8) return null;
    const value = Math.min(geometry.x.high, Math.max(geometry.x.low, geometry.x.value(Math.min(geometry.right, Math.max(geometry.left, x)))));
    return { axis: view.axis, value: view.axis === "iteration" ? Math.round(value) : value };
  };
  const hover = (position) => {
    if (positionKey(position) === positionKey(view.hover)) return;
    view.hover = position;
    mark(view, "text", "tiles", "curves");
  };
  refs.plot.addEventListener("pointermove", (event) => hover(locate(event)));
  refs.plot.addEventListener("pointerleave", () => hover(null));
  refs.plot.addEventListener("click", (event) => { const position = locate(event); if (position) { view.hover = null; seek(view, position); } });
}

function setAxis(view, axis, chosen) {
  if (chosen) view.axisChosen = true;
  if (axis === view.axis) return;
  view.axis = axis;
  view.hover = null;
  view.position = null;
  view.exact = null;
  mark(view, "text", "tiles", "curves");
}

/** Which tab is shown: PSNR needs a truth; without one the residual takes its place. */
function updateTabs(view) {
  const truth = hasTruth(view.state);
  const shown = (name) => (LEARNED.includes(name) ? [...view.state.curves.values()].some((curve) => curve[name].length) : truth || (name !== "psnr" && name !== "ssim"));
  if (!view.metricChosen || !shown(view.metric)) view.metric = metricToShow(view.state);
  for (const tab of view.refs.root.querySelectorAll("[data-metric]")) {
    tab.hidden = !shown(tab.dataset.metric);
    tab.setAttribute("aria-pressed", String(tab.dataset.metric === view.metric));
  }
  for (const tab of view.refs.root.querySelectorAll("[data-axis]")) tab.setAttribute("aria-pressed", String(tab.dataset.axis === view.axis));
  view.refs.log.setAttribute("aria-pressed", String(logAxis(view)));
}

/** Whether the horizontal axis is logarithmic: as a person chose, and until then where the methods end far apart. */
function logAxis(view) {
  return view.log ?? (view.axis === "iteration" && endFarApart(view.state.lanes.slice(0, 4)));
}

/** A method that is through keeps its last estimate: its curve goes on as a thin level line while the others run. */
function holds(state, lane) {
  return lane.state === "finished" || lane.state === "stopped" || (state.type === "recording" && lane.state !== "failed");
}

/** Everything the plot needs in CSS pixels: scales, series per lane, or null when there is nothing to draw yet. */
function curveGeometry(view, context, width, height) {
  const { state, metric, axis } = view;
  const lanes = state.lanes.slice(0, 4);
  const series = lanes.map((lane) => seriesOf(state, lane.id, metric, axis));
  const sigma = metric === "residual" ? state.strip.measurement?.noise_std ?? null : null;
  const seen = series.some(({ y }) => y.length);
  const bands = metric === "psnr" ? lanes.map((lane) => bandOf(state, lane.id, axis)).filter(Boolean) : [];
  const besides = [...(sigma && seen ? [{ y: [sigma] }] : []), ...bands.flatMap(({ low, high }) => [{ y: low }, { y: high }])];
  const range = valueRange([...series, ...besides], metric);
  const names = lanes.map((lane) => lane.name ?? "");
  const label = Math.min(width < 480 ? 72 : 116, Math.max(24, ...names.map((name) => context.measureText(name).width)) + 10);
  const [left, right, top, bottom] = [44, width - label, 22, height - 34];
  const firsts = series.flatMap(({ x }) => (x.length ? [x.find((v) => v > 0) ?? 0] : []));
  const learned = LEARNED.includes(metric);
  let high = learned ? Math.max(0, ...series.flatMap(({ x }) => x.slice(-1))) : Math.max(timelineEnd(state, axis), ...(axis === "iteration" && state.type === "race" ? lanes.map((lane) => (lane.state === "running" || lane.state === "finished" ? lane.total ?? 0 : 0)) : []), 0);
  if (axis === "seconds") high = Math.max(high, 1);
  const log = logAxis(view) && high > 1 && firsts.length > 0;
  const low = log ? Math.max(axis === "iteration" ? 1 : 0.05, Math.min(...firsts) || 0) : 0;
  const x = makeScale(low, Math.max(high, log ? low * 10 : 10), left, right, log, width < 480 ? 4 : 7);
  x.known = high > 0;
  const y = range ? makeScale(range.low, range.high, bottom, top, range.log, 5) : null;
  const end = learned ? 0 : timelineEnd(state, axis);
  const ends = lanes.map((lane, i) => (holds(state, lane) ? Math.max(end, series[i].x.at(-1) ?? 0) : series[i].x.at(-1) ?? 0));
  return { left, right, edge: width, top, bottom, x, y, sigma, series, ends, names };
}

function paintCurves(view) {
  const { context, width, height, ratio } = fitCanvas(view.refs.plot);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `12px ${view.colours.sans}`;
  const geometry = curveGeometry(view, context, width / ratio, height / ratio);
  const learned = LEARNED.includes(view.metric);
  view.geometry = geometry.y && !learned ? geometry : null; // the timeline has no place for what came before it
  paintAxes(view, context, geometry);
  if (geometry.y) {
    context.save();
    context.beginPath();
    context.rect(geometry.left, geometry.top - 6, geometry.right - geometry.left + 6, geometry.bottom - geometry.top + 7);
    context.clip();
    if (view.metric === "psnr") view.state.lanes.slice(0, 4).forEach((lane, index) => paintBand(view, context, geometry, bandOf(view.state, lane.id, view.axis), index));
    geometry.series.forEach((series, lane) => paintLine(view, context, geometry, series, lane));
    context.restore();
    const taken = paintNames(view, context, geometry);
    taken.push([geometry.left, 0, context.measureText(metricName(view)).width]);
    paintNoise(view, context, geometry, taken);
    if (!learned) { paintMarks(view, context, geometry, taken); paintCrosshair(view, context, geometry); }
  }
  updateKey(view);
  updateStops(view);
  updateReadout(view);
}

/** In the residual's plot: the noise level. Below it, a network has begun to fit noise. */
function paintNoise(view, context, { left, right, top, bottom, y, sigma }, taken) {
  if (!sigma) return;
  const at = Math.round(y.at(sigma)) + 0.5;
  if (at < top - 4 || at > bottom + 1) return;
  const words = "σ, the noise level";
  context.strokeStyle = context.fillStyle = view.colours.ink;
  context.lineWidth = 1;
  context.setLineDash([1, 3]);
  line(context, left, at, right, at);
  context.setLineDash([]);
  context.textAlign = "left";
  context.textBaseline = "middle";
  const width = context.measureText(words).width;
  const height = at - 9 < top ? at + 9 : at - 9;
  context.lineWidth = 3;
  context.strokeStyle = view.colours.paper;
  context.strokeText(words, right - width - 4, height);
  context.fillText(words, right - width - 4, height);
  taken.push([right - width - 4, height, width]);
}

function paintAxes(view, context, { left, right, top, bottom, x, y }) {
  const { colours } = view;
  context.lineWidth = 1;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.muted;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const tick of y?.ticks ?? []) {
    const at = Math.round(y.at(tick)) + 0.5;
    if (at < top - 4 || at > bottom + 1) continue;
    line(context, left, at, right, at);
    context.fillText(view.metric === "psnr" ? String(tick) : compactTick(tick), left - 8, at);
  }
  line(context, left, bottom + 0.5, right, bottom + 0.5);
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of x.known ? x.ticks : []) {
    const at = Math.round(x.at(tick)) + 0.5;
    line(context, at, bottom, at, bottom + 4);
    context.fillText(tick >= 10000 ? `${tick / 1000}k` : String(tick), at, bottom + 7);
  }
  context.textAlign = "right";
  context.fillText(`${view.axis === "seconds" ? "seconds" : LEARNED.includes(view.metric) ? "step of learning" : "iteration"}${x.log ? ", log" : ""}`, right, bottom + 21);
  context.textAlign = "left";
  context.fillText(`${metricName(view)}${y?.log ? ", log" : ""}`, left, 0);
  if (!y) {
    context.textAlign = "center";
    context.fillText(view.state.lanes.length ? "The curves appear here while the race runs." : "", (left + right) / 2, (top + bottom) / 2);
  }
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function compactTick(value) {
  return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(0).replace("e+", "e").replace("-", "−") : String(value);
}

function paintLine(view, context, { x, y, ends }, series, lane) {
  const points = thinPolyline(series.x, series.y, x, y);
  if (!points.length) return;
  context.strokeStyle = view.colours.lanes[lane];
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.setLineDash(DASHES[lane]);
  context.beginPath();
  points.forEach(([px, py], i) => (i ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.stroke();
  context.setLineDash([]);
  const [lastX, lastY] = points.at(-1);
  if (x.at(ends[lane]) > lastX + 1) { context.lineWidth = 1; line(context, lastX, lastY, x.at(ends[lane]), lastY); }
  if (points.length === 1) dot(context, points[0][0], points[0][1], view.colours.lanes[lane]);
}

/** The range over the seeds, behind its median. */
function paintBand(view, context, { x, y }, band, lane) {
  if (!band) return;
  const upper = thinPolyline(band.x, band.high, x, y);
  const lower = thinPolyline(band.x, band.low, x, y).reverse();
  context.fillStyle = view.colours.lanes[lane];
  context.globalAlpha = 0.16;
  context.beginPath();
  [...upper, ...lower].forEach(([px, py], i) => (i ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.fill();
  context.globalAlpha = 1;
}

function dot(context, x, y, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, 3, 0, 7);
  context.fill();
}

/** Names at the line ends, moved apart where they would touch. Returns the places they took. */
function paintNames(view, context, { right, edge, top, bottom, x, y, series, ends, names }) {
  const shown = series.map((s, lane) => ({ lane, s })).filter(({ s }) => s.x.length);
  const wished = shown.map(({ s }) => Math.min(bottom, Math.max(top, y.at(s.y.at(-1)))));
  const heights = spreadLabels(wished, 15, top, bottom);
  context.textAlign = "left";
  context.textBaseline = "middle";
  return shown.map(({ lane }, i) => {
    const end = Math.min(right, x.at(ends[lane]));
    const reached = end > right - 12;
    const at = reached ? right + 8 : end + 8;
    context.fillStyle = view.colours.lanes[lane];
    const name = fitText(context, names[lane], edge - at);
    context.lineWidth = 3;
    context.strokeStyle = view.colours.paper;
    context.strokeText(name, at, heights[i]);
    context.fillText(name, at, heights[i]);
    return [at, heights[i], context.measureText(name).width];
  });
}

function fitText(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  while (text.length > 1 && context.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return `${text}…`;
}

/** The hollow oracle first and the dot of the result last: at one point both can be read. */
function inOrder(marks) {
  const order = ["oracle", "stop", "best", "result"];
  return [...marks].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
}

/** Marks of the server, and the best so far of each lane where the server marks none. */
function allMarks(view) {
  const { state, metric } = view;
  const marks = state.marks.filter((mark) => mark.kind !== "best" || metric === "psnr");
  if (metric !== "psnr") return inOrder(marks);
  // at the end the oracle stands where the best so far was
  const marked = new Set(marks.filter((mark) => mark.kind === "best" || mark.kind === "oracle").map((mark) => mark.lane));
  const own = state.lanes.filter((lane) => lane.best && lane.total !== 1 && !marked.has(lane.id)).map((lane) => ({ lane: lane.id, kind: "best", iteration: lane.best.iteration, label: "" }));
  return inOrder([...marks, ...own]);
}

function paintMarks(view, context, geometry, taken) {
  for (const mark of allMarks(view)) {
    const lane = view.state.lanes.findIndex((candidate) => candidate.id === mark.lane);
    const point = pointAt(view.state, mark.lane, view.metric, mark.iteration);
    if (lane < 0 || !point || !KEY_SHAPES[mark.kind]) continue;
    const px = geometry.x.at(view.axis === "seconds" ? point[1] : point[0]);
    const py = Math.min(geometry.bottom, Math.max(geometry.top, geometry.y.at(point[2])));
    paintMark(context, mark.kind, px, py, view.colours.lanes[lane], view.colours.paper);
    if (mark.label && mark.kind !== "best") labelMark(view, context, geometry, mark, px, py, taken, view.colours.lanes[lane]);
  }
}

function paintMark(context, kind, px, py, colour, paper) {
  const [shape, filled] = KEY_SHAPES[kind];
  context.save();
  const up = kind === "best" ? -9 : 0; // the triangle stands under the line and points at it
  context.translate(px - 4.5, py - 4.5 - up);
  const path = new Path2D(shape);
  context.lineWidth = 3;
  context.strokeStyle = paper;
  if (kind !== "result") context.stroke(path); // a halo, which would hide an oracle at the same point
  context.fillStyle = filled ? colour : paper;
  context.fill(path);
  context.lineWidth = 1.4;
  context.strokeStyle = colour;
  context.stroke(path);
  context.restore();
}

/** A mark's label near it, in its lane's colour; left out where every place for it is taken. */
function labelMark(view, context, { left, right, top, bottom }, { kind, label: text }, px, py, taken, colour) {
  const width = context.measureText(text).width;
  const x = Math.min(right - width, Math.max(left, px - width / 2));
  const free = (y) => y >= top - 16 && y <= bottom - 6 && !taken.some(([tx, ty, tw]) => Math.abs(ty - y) < 14 && x < tx + tw + 6 && tx < x + width + 6);
  const y = (kind === "stop" && right - left > 400 ? [py - 12, py + 16, py - 26, py + 30, py - 40, py + 44] : [py - 12, py + 16]).find(free);
  if (y === undefined) return;
  taken.push([x, y, width]);
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.lineWidth = 3;
  context.strokeStyle = view.colours.paper;
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

function paintCrosshair(view, context, { left, right, top, bottom, x, y }) {
  const position = view.hover ?? view.position;
  if (!position || position.axis !== view.axis) return;
  const at = Math.min(right, Math.max(left, x.at(position.value)));
  context.strokeStyle = view.hover ? view.colours.muted : view.colours.accent;
  context.lineWidth = 1;
  line(context, Math.round(at) + 0.5, top, Math.round(at) + 0.5, bottom);
  view.state.lanes.slice(0, 4).forEach((lane, index) => {
    const point = pointAt(view.state, lane.id, view.metric, iterationAt(view.state, lane.id, position));
    if (point) dot(context, x.at(view.axis === "seconds" ? point[1] : point[0]), Math.min(bottom, Math.max(top, y.at(point[2]))), view.colours.lanes[index]);
  });
}
