// The state of the view, and how a message changes it. Pure: no DOM, so that node can test it.

const FRAME_BYTES = 24e6; // what the browser keeps of received pictures, over all lanes
const FRAME_COUNT = 400; // and per lane: more than a slider of a screen's width can tell apart

function emptyState() {
  return {
    run: null, type: "setup", seq: -1, state: "idle", note: "", place: null, schedule: "iteration", eta: null, elapsed: 0,
    strip: {}, lanes: [], curves: new Map(), marks: [], frames: new Map(), recorded: null, convention: "", metric: "psnr", rules: [], seeds: 1, link: null, holes: 0,
  };
}

/** Whether scores against a truth exist: with no truth PSNR is absent everywhere, not zero. */
function hasTruth(state) {
  return state.strip.truth !== null; // undefined: nothing was said yet
}

/** Apply one message in place. Returns what changed: {run, strip} or null when the message is stale or not ours. */
function mergeMessage(state, message) {
  if (!message || message.v !== 1) return null;
  const run = message.run ?? "";
  const sameRun = run === state.run && message.type === state.type;
  if (sameRun && message.type === "race" && message.seq <= state.seq) return null;
  if (!sameRun) Object.assign(state, emptyState(), { strip: state.strip, convention: state.convention });
  const changed = { run: !sameRun, strip: Boolean(message.strip) };
  Object.assign(state, {
    run, type: message.type, seq: message.seq ?? 0, state: message.state ?? "idle", note: message.note ?? "",
    place: message.place ?? null, schedule: message.schedule ?? state.schedule, eta: message.eta ?? null, elapsed: message.elapsed ?? 0,
    marks: message.marks ?? state.marks, convention: message.convention ?? state.convention, metric: message.metric ?? state.metric, rules: message.rules ?? state.rules, seeds: message.seeds ?? state.seeds, link: message.link ?? state.link,
    recorded: message.recorded ? { label: message.recorded.label ?? "" } : state.recorded,
  });
  if (message.strip) Object.assign(state.strip, message.strip);
  if (message.lanes) mergeLanes(state, message.lanes);
  for (const part of message.curves ?? []) mergeCurve(state, part);
  for (const frame of message.recorded?.frames ?? []) keepFrame(state, frame.lane, { ...frame, lossless: frame.lossless ?? true });
  return changed;
}

/** Lanes in the message's order; a picture that is not in the message is the one already known. */
function mergeLanes(state, lanes) {
  const known = new Map(state.lanes.map((lane) => [lane.id, lane]));
  state.lanes = lanes.map((lane) => {
    const merged = { ...known.get(lane.id), ...lane };
    merged.picture = lane.picture ?? known.get(lane.id)?.picture ?? null;
    return merged;
  });
  for (const lane of lanes) {
    if (lane.picture && lane.picture.kind !== "shots") keepFrame(state, lane.id, lane.picture);
  }
}

/** Metrics that are lists of [iteration, seconds, value], and those of them that are of the learning before iteration 0. */
const SPARSE = ["ssim", "residual", "learning", "left_out"];
const LEARNED = ["left_out", "learning"];

function emptyCurve() {
  return { iteration: [], seconds: [], psnr: [], objective: [], low: [], high: [], ...Object.fromEntries(SPARSE.map((name) => [name, []])) };
}

/** Append-only: `from` says where the part starts; what is already here is ignored, a hole (a lost message) becomes nulls. */
function mergeCurve(state, part) {
  if (!state.curves.has(part.lane)) state.curves.set(part.lane, emptyCurve());
  const curve = state.curves.get(part.lane);
  const from = part.from ?? 0;
  if (from > curve.iteration.length) state.holes += from - curve.iteration.length;
  for (const key of ["iteration", "seconds", "psnr", "objective", "low", "high"]) if (part[key]) appendFrom(curve[key], from, part[key]);
  for (const key of SPARSE) if (part[key]) appendFrom(curve[key], part[key + "_from"] ?? 0, part[key]);
}

function appendFrom(list, from, values) {
  while (list.length < from) list.push(null);
  for (let i = 0; i < values.length; i++) {
    const at = from + i;
    if (at >= list.length) list.push(values[i]);
    else if (list[at] === null) list[at] = values[i]; // a hole that was sent again
  }
}

/** Keep a picture in its lane, in order of iteration; an exact one replaces a preview. Bounded by count and bytes. */
function keepFrame(state, lane, { iteration, src, lossless, psnr, ssim }) {
  if (!state.frames.has(lane)) state.frames.set(lane, []);
  const frames = state.frames.get(lane);
  const at = lastAtOrBefore(frames, iteration, (frame) => frame.iteration);
  const frame = { iteration, src, lossless: Boolean(lossless), psnr: psnr ?? null, ssim: ssim ?? null };
  if (at >= 0 && frames[at].iteration === iteration) {
    if (frame.lossless || !frames[at].lossless) frames[at] = frame;
  } else frames.splice(at + 1, 0, frame);
  if (!state.recorded) thinFrames(frames, FRAME_COUNT, FRAME_BYTES / Math.max(1, state.lanes.length));
}

/** Drop the picture whose neighbours are nearest in log iteration until count and bytes fit: what stays is log-spaced. */
function thinFrames(frames, count, bytes) {
  let size = frames.reduce((sum, frame) => sum + frame.src.length, 0);
  while (frames.length > 2 && (frames.length > count || size > bytes)) {
    let drop = 1;
    let least = Infinity;
    for (let i = 1; i < frames.length - 1; i++) {
      const gap = Math.log((frames[i + 1].iteration + 1) / (frames[i - 1].iteration + 1));
      if (gap < least) [least, drop] = [gap, i];
    }
    size -= frames[drop].src.length;
    frames.splice(drop, 1);
  }
}

/** Index of the last entry whose key is ≤ value, −1 if none; null entries (holes) are stepped over. */
function lastAtOrBefore(list, value, key = (entry) => entry) {
  let low = 0;
  let high = list.length - 1;
  let found = -1;
  while (low <= high) {
    let middle = (low + high) >> 1;
    let probe = middle;
    while (probe >= low && list[probe] === null) probe--;
    if (probe < low) { low = middle + 1; continue; }
    if (key(list[probe]) <= value) [found, low] = [probe, middle + 1];
    else high = probe - 1;
  }
  return found;
}

/** The picture nearest to, and not after, an iteration; the first one when there is none before. */
function frameAt(state, lane, iteration) {
  const frames = state.frames.get(lane) ?? [];
  return frames[Math.max(0, lastAtOrBefore(frames, iteration, (frame) => frame.iteration))] ?? null;
}

/** The iteration a lane had reached at a position {axis, value} of the timeline; null when it has no point there. */
function iterationAt(state, lane, position) {
  const curve = state.curves.get(lane);
  if (!curve || !curve.iteration.length) return position.axis === "iteration" ? position.value : null;
  const index = lastAtOrBefore(curve[position.axis], position.value);
  return index < 0 ? null : curve.iteration[index];
}

/** [iteration, seconds, value] of a metric at or before an iteration, or null. */
function pointAt(state, lane, metric, iteration) {
  const curve = state.curves.get(lane);
  if (!curve || iteration === null) return null;
  if (SPARSE.includes(metric)) {
    return curve[metric][lastAtOrBefore(curve[metric], iteration, (point) => point[0])] ?? null;
  }
  const index = lastAtOrBefore(curve.iteration, iteration);
  const value = curve[metric]?.[index];
  return index < 0 || value === null || value === undefined ? null : [curve.iteration[index], curve.seconds[index], value];
}

/** The points of one lane's curve as {x: [], y: []} without holes. */
function seriesOf(state, lane, metric, axis) {
  const curve = state.curves.get(lane) ?? emptyCurve();
  const x = [];
  const y = [];
  if (SPARSE.includes(metric)) {
    for (const point of curve[metric]) if (point && point[2] !== null) { x.push(point[axis === "seconds" ? 1 : 0]); y.push(point[2]); }
  } else {
    const values = curve[metric];
    for (let i = 0; i < values.length; i++) {
      const at = curve[axis][i];
      if (values[i] === null || values[i] === undefined || at === null || at === undefined) continue;
      x.push(at);
      y.push(values[i]);
    }
  }
  return { x, y };
}

/** The range over the seeds as {x, low, high}, or null where there is one seed only. */
function bandOf(state, lane, axis) {
  const curve = state.curves.get(lane);
  if (!curve?.low.length) return null;
  const band = { x: [], low: [], high: [] };
  curve.low.forEach((low, i) => {
    if (low === null || (curve.high[i] ?? null) === null || (curve[axis][i] ?? null) === null) return;
    band.x.push(curve[axis][i]);
    band.low.push(low);
    band.high.push(curve.high[i]);
  });
  return band.x.length ? band : null;
}

/** How far the timeline reaches on an axis. */
function timelineEnd(state, axis) {
  let end = 0;
  for (const curve of state.curves.values()) end = Math.max(end, curve[axis].at(-1) ?? 0);
  if (axis === "iteration") for (const frames of state.frames.values()) end = Math.max(end, frames.at(-1)?.iteration ?? 0);
  return end;
}

/** Which curve to show until a person chooses one: what is being learned, as long as no method solves; then the race's own. */
function metricToShow(state) {
  const points = (name) => [...state.curves.values()].some((curve) => curve[name].length);
  if (!points("iteration")) { const learned = LEARNED.find(points); if (learned) return learned; }
  return hasTruth(state) ? state.metric : "residual";
}

/** What the race as a whole has done, in [0, 1]. */
function progressOf(state) {
  const lanes = state.lanes.filter((lane) => lane.state !== "refused");
  if (!lanes.length || state.type !== "race") return 0;
  const over = (lane) => ["finished", "failed", "stopped"].includes(lane.state);
  const done = (lane) => (over(lane) ? lane.total ?? 1 : lane.state === "running" ? lane.iteration : 0);
  // a lane in preparation counts its pre-training steps as total: take the longest solve instead
  const solve = Math.max(1, ...lanes.map((lane) => (lane.state === "preparing" ? 0 : lane.total ?? 0)));
  const all = lanes.reduce((sum, lane) => sum + (lane.state === "preparing" ? solve : lane.total || 1), 0);
  return Math.min(1, lanes.reduce((sum, lane) => sum + done(lane), 0) / all);
}
