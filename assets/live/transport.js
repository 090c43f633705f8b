// Run, pause, step, stop; the status line; the timeline; the keyboard.

const PAUSE_ICON = "M2.4 1.5h2.6v9H2.4zM7 1.5h2.6v9H7z";
const PLAY_ICON = "M2.5 1.2v9.6L10.6 6z";
const ASK_AFTER = 120; // ms of rest before the server is asked for exact frames
const STOP_ANSWER = 3000; // ms after which a race that does not say it stopped is taken as stopped: Run must come back
const RUN_ANSWER = 6000; // ms until Run can be pressed again when the server says nothing

function running(state) {
  return state.type === "race" && ["running", "paused", "waiting"].includes(state.state);
}

function wireTransport(view) {
  const { refs } = view;
  const press = (ref, action) => refs[ref].addEventListener("click", (event) => {
    if (event.detail > 0) event.currentTarget.blur(); // after a mouse click Space is the shortcut again, not this button
    action();
  });
  press("run", () => pressRun(view));
  press("pause", () => control(view, view.state.state === "paused" ? "resume" : "pause"));
  press("step", () => control(view, "step"));
  press("stop", () => control(view, "stop"));
  press("enough", () => control(view, "enough"));
  press("live", () => seek(view, null));
  refs.slider.addEventListener("input", () => {
    const value = Number(refs.slider.value);
    seek(view, value >= Number(refs.slider.max) ? null : { axis: view.axis, value });
  });
  view.listen(document, "keydown", (event) => onKey(view, event));
}

/** Start a race. Pressed twice, only the first counts; pressed before the page knows what is set up, it starts as soon as it does. */
function pressRun(view) {
  if (view.refs.run.disabled) return;
  view.pending = "run";
  view.early = view.messages === 0;
  if (!view.early) startRun(view);
  mark(view, "transport");
}

function startRun(view) {
  view.early = false;
  clearTimeout(view.pendingTimer);
  view.pendingTimer = setTimeout(() => { view.pending = null; mark(view, "transport"); }, RUN_ANSWER);
  view.trigger("submit");
  mark(view, "transport");
}

async function control(view, action) {
  if (view.pending || !running(view.state)) return;
  view.pending = action;
  mark(view, "transport");
  const { run } = view.state;
  if (action === "stop") setTimeout(() => assumeStopped(view, run), STOP_ANSWER);
  const answer = await askServer(view, "control", run, action);
  if (view.pending === action) view.pending = null;
  view.notice = !answer ? "The server did not answer. Is it still running?" : answer.ok ? "" : answer.message || `Could not ${action}.`;
  mark(view, "transport");
}

function assumeStopped(view, run) {
  if (view.state.run !== run || !running(view.state)) return;
  view.state.state = "stopped";
  mark(view, "transport", "text");
}

async function askServer(view, name, ...args) {
  try {
    return await view.server?.[name]?.(...args);
  } catch {
    return undefined;
  }
}

/** Go to a position {axis, value} of the timeline, or back to live with null. */
function seek(view, position) {
  view.position = position;
  if (!position) view.exact = null;
  mark(view, "text", "tiles", "curves");
  clearTimeout(view.askTimer);
  if (position && view.state.type === "race") view.askTimer = setTimeout(() => askFrames(view, position), ASK_AFTER);
}

/** Ask for the exact frames at a pinned position: once per distinct iteration, since on the clock lanes are at different ones. */
async function askFrames(view, position) {
  const { run, lanes } = view.state;
  const wanted = new Map();
  for (const lane of lanes) {
    const iteration = iterationAt(view.state, lane.id, position);
    if (iteration !== null) wanted.set(iteration, [...(wanted.get(iteration) ?? []), lane.id]);
  }
  const frames = new Map();
  for (const [iteration, ids] of wanted) {
    const answer = await askServer(view, "frames", run, Math.round(iteration));
    for (const frame of answer?.lanes ?? []) if (ids.includes(frame.id) && frame.src) frames.set(frame.id, { ...frame, lossless: true });
  }
  if (view.state.run !== run || positionKey(view.position) !== positionKey(position) || !frames.size) return;
  view.exact = { key: positionKey(position), frames };
  mark(view, "text", "tiles");
}

/** One keyboard step on the timeline: a hundredth of it, or at least one iteration. */
function nudge(view, direction, big) {
  const end = timelineEnd(view.state, view.axis);
  if (!end) return;
  const stride = (view.axis === "iteration" ? Math.max(1, Math.round(end / 100)) : end / 100) * (big ? 10 : 1);
  const value = (view.position?.axis === view.axis ? view.position.value : end) + direction * stride;
  seek(view, value >= end ? null : { axis: view.axis, value: Math.max(0, value) });
}

function onKey(view, event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !view.element.offsetParent) return;
  const target = event.target instanceof Element ? event.target : document.body;
  const own = view.element.contains(target) && target.tagName === "BUTTON";
  const typing = target.closest("input, textarea, select, [contenteditable='true'], [role='slider'], [role='tab'], [role='option'], [role='listbox'], [role='radio']");
  const pressing = target.closest("button, a, summary, label, [role='button']");
  if (typing) return;
  const act = (action) => { event.preventDefault(); action(); };
  if (event.key === " " && !pressing && running(view.state) && view.state.state !== "waiting") act(() => view.refs.pause.click());
  else if ((event.key === "s" || event.key === "S") && (!pressing || own) && !view.refs.step.disabled) act(() => view.refs.step.click());
  else if (event.key === "ArrowLeft" && (!pressing || own)) act(() => nudge(view, -1, event.shiftKey));
  else if (event.key === "ArrowRight" && (!pressing || own)) act(() => nudge(view, 1, event.shiftKey));
}

function updateTransport(view) {
  const { refs, state } = view;
  const live = running(state);
  const paused = live && state.state === "paused";
  const hopeless = state.lanes.length > 0 && state.type === "setup" && state.lanes.every((lane) => lane.state === "refused");
  const focused = document.activeElement;
  const busy = Boolean(view.pending);
  refs.run.disabled = live || busy || hopeless;
  refs.pause.disabled = !live || busy || state.state === "waiting";
  refs.step.disabled = !paused || busy;
  refs.stop.disabled = !live || (busy && view.pending !== "run");
  refs.enough.hidden = !live || !state.lanes.some((lane) => lane.state === "preparing");
  refs.enough.disabled = busy;
  setText(refs.pauseText, paused ? "Resume" : "Pause");
  refs.pauseIcon.setAttribute("d", paused ? PLAY_ICON : PAUSE_ICON);
  if (focused?.disabled && [refs.run, refs.pause, refs.step, refs.stop].includes(focused)) {
    (live ? [refs.pause, refs.stop] : [refs.run]).find((button) => !button.disabled)?.focus({ preventScroll: true });
  }
  const { text, tone } = view.notice ? { text: view.notice, tone: "alert" } : view.pending === "run" && !live ? { text: "Starting.", tone: "" } : statusOf(state);
  setText(refs.status, text);
  refs.status.dataset.tone = tone;
  refs.progress.style.width = `${(progressOf(state) * 100).toFixed(1)}%`;
  refs.progress.toggleAttribute("data-active", live);
  announce(view, text);
}

/** Tell a screen reader what changed: a new state at once, a running count every ten seconds. */
function announce(view, text) {
  const key = `${view.state.run}/${view.state.state}/${view.notice}`;
  const now = performance.now();
  if (key === view.announced && now - view.announcedAt < 10000) return;
  if (key === view.announced && view.state.state !== "running") return;
  view.announced = key;
  view.announcedAt = now;
  setText(view.refs.announce, text);
}

function updateTimeline(view) {
  const { refs, state, axis } = view;
  const end = timelineEnd(state, axis);
  const position = view.position;
  refs.slider.disabled = !end;
  refs.slider.step = axis === "iteration" ? "1" : String(Math.max(end / 1000, 1e-3));
  refs.slider.max = String(end);
  const shown = view.hover ?? position;
  const value = position?.axis === axis ? position.value : end;
  if (Number(refs.slider.value) !== value) refs.slider.value = String(value);
  const at = shown ?? { axis, value: end };
  const text = !end ? NONE : at.axis === "iteration" ? `it ${count(at.value)}` : duration(at.value);
  setText(refs.at, text);
  refs.slider.setAttribute("aria-valuetext", text);
  refs.live.disabled = !end || !position;
  setText(refs.live, state.type === "race" && running(state) ? "Live" : "Latest");
  refs.live.setAttribute("aria-pressed", String(Boolean(end) && !position));
}

/** The values in words, for who cannot see the curves. Once a second is enough. */
function updateTable(view) {
  if (view.tableTimer) return;
  view.tableTimer = setTimeout(() => {
    view.tableTimer = null;
    const truth = hasTruth(view.state);
    const scores = (lane) => (truth ? [fixed(lane.psnr, 2), fixed(lane.ssim, 3), fixed(lane.best?.psnr, 2)] : []);
    const rows = view.state.lanes.map((lane) => [lane.name, laneWord(lane), count(lane.iteration), compact(lane.residual), ...scores(lane)]);
    const head = ["Method", "State", "Iteration", "Residual", ...(truth ? ["PSNR, dB", "SSIM", "Best PSNR, dB"] : [])];
    const makeRow = (tag, cells) => make("tr", "", ...cells.map((cell) => make(tag, "", cell ?? "")));
    view.refs.tableHead.replaceChildren(makeRow("th", head));
    view.refs.table.replaceChildren(...rows.map((row) => makeRow("td", row)));
  }, 1000);
}
