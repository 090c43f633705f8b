// Numbers and sentences. Pure: no DOM. A number keeps its width while it changes, and what is not known is an en dash.

const NONE = "–";

function fixed(value, digits) {
  return value === null || value === undefined || !Number.isFinite(value) ? NONE : value.toFixed(digits).replace("-", "−");
}

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function count(value) {
  return value === null || value === undefined ? NONE : GROUPED.format(value);
}

/** Three significant digits, exponent only where it shortens. */
function compact(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replace("-", "−");
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toFixed(3);
}

/** Iterations a second. */
function rate(value) {
  return value === null || value === undefined ? NONE : value >= 100 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : value.toFixed(2);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];

function placeSentence(place) {
  if (place === null || place === undefined) return "Waiting for the device.";
  return place <= 1 ? "You are next in line." : `You are ${ORDINALS[place - 1] ?? `number ${place}`} in line.`;
}

/** The lane that decides how long the race still takes: the one in progress with most left to do. */
function leadingLane(state) {
  const open = state.lanes.filter((lane) => lane.state === "running" || lane.state === "preparing");
  const left = (lane) => (lane.total ? lane.total - lane.iteration : 0);
  return open.reduce((best, lane) => (best === null || left(lane) > left(best) ? lane : best), null);
}

/** The status line: {text, tone}. The server's note, where there is one, is added to what the state says. */
function statusOf(state) {
  const note = state.note ? ` ${state.note}` : "";
  if (state.type === "recording") return { text: state.recorded?.label || "A recorded race. Press Run for a live one.", tone: "" };
  const refused = state.lanes.length > 0 && state.lanes.every((lane) => lane.state === "refused");
  switch (state.state) {
    case "waiting": return { text: placeSentence(state.place) + note, tone: "" };
    case "running": return { text: runningSentence(state) + note, tone: "" };
    case "paused": return { text: `Paused at ${runningSentence(state, false)}.${note}`, tone: "" };
    case "finished": return { text: `Finished in ${duration(state.elapsed)}.${failures(state)}${note}`, tone: "" };
    case "stopped": return { text: `Stopped after ${duration(state.elapsed)}.${note}`, tone: "" };
    case "failed": return { text: state.note || "The race failed.", tone: "alert" };
    default: return { text: state.note || (refused ? "No chosen method can solve this." : "Ready: press Run."), tone: refused ? "alert" : "" };
  }
}

/** How many methods failed, for who does not see their tiles. */
function failures(state) {
  const failed = state.lanes.filter((lane) => lane.state === "failed").length;
  return failed ? ` ${failed} of ${state.lanes.length} methods failed: the tile says why.` : "";
}

function runningSentence(state, withTime = true) {
  const lane = leadingLane(state);
  if (!lane) return state.lanes.every((one) => one.state === "ready") ? `Starting: drawing A, the noise and the networks · ${duration(state.elapsed)}` : duration(state.elapsed);
  if (lane.state === "preparing") return `${lane.name}: ${phaseOf(lane)}`;
  const left = withTime && state.eta !== null ? ` · ${duration(state.eta)} left` : "";
  return `it ${count(lane.iteration)}${lane.total ? ` / ${count(lane.total)}` : ""}${left}`;
}

/** What a lane in preparation is doing: "pre-training 240/1500". */
function phaseOf(lane) {
  const phase = lane.phase || "preparing";
  return /\d/.test(phase) || !lane.total ? phase : `${phase} ${count(lane.iteration)}/${count(lane.total)}`;
}

/** What a stopping rule says of a lane: "it 95, −0.47 dB". */
function stopWords(state, lane, rule) {
  const mark = state.marks.find((candidate) => candidate.kind === "stop" && candidate.lane === lane.id && candidate.rule === rule.title);
  if (!mark) return lane.total > 1 && lane.state === "running" ? "watching" : NONE;
  const lost = mark.lost === null || mark.lost === undefined ? "" : `, −${mark.lost.toFixed(2)} dB`;
  return `it ${count(mark.iteration)}${lost}${mark.fired === null ? " (did not fire)" : ""}`;
}

/** The word beside a lane's name. */
function laneWord(lane) {
  if (lane.state === "preparing") return lane.phase || "preparing";
  if (lane.state === "running") return lane.phase || "running";
  return lane.state ?? "";
}
