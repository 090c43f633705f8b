// Ticks, scales and labels of the curves. Pure: no DOM.

/** How many times as long the longest run may be before the shortest becomes a sliver of a linear axis. */
const FAR_APART = 5;

/** Whether these lanes solve for so different numbers of iterations. One-shot methods have no curve, and a lane in preparation counts another total. */
function endFarApart(lanes) {
  const totals = lanes.filter((lane) => !["preparing", "failed", "refused"].includes(lane.state)).map((lane) => lane.total ?? 0).filter((total) => total > 1);
  return totals.length > 1 && Math.max(...totals) > FAR_APART * Math.min(...totals);
}

/** Few round numbers inside [low, high]: steps of 1, 2 or 5 times a power of ten. */
function linearTicks(low, high, wanted) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** Powers of ten inside [low, high], with 2 and 5 when there are few of them, without some when there are many. */
function logTicks(low, high, wanted) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const factors = last - first > wanted ? [1] : last - first > 2 ? [1] : [1, 2, 5];
  const every = Math.max(1, Math.ceil((last - first) / wanted));
  const ticks = [];
  for (let power = first; power <= last; power++) {
    if ((power - first) % every) continue;
    for (const factor of factors) {
      const tick = Number(`${factor}e${power}`);
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks.length > 1 ? ticks : [low, high];
}

/** A map from values to pixels: {at(value), value(pixel), ticks}. */
function makeScale(low, high, from, to, log, wanted) {
  const bend = log ? (v) => Math.log10(Math.max(v, low)) : (v) => v;
  const unbend = log ? (v) => 10 ** v : (v) => v;
  const span = bend(high) - bend(low) || 1;
  return {
    low, high, log,
    at: (value) => from + ((bend(value) - bend(low)) / span) * (to - from),
    value: (pixel) => unbend(bend(low) + ((pixel - from) / (to - from || 1)) * span),
    ticks: log ? logTicks(low, high, wanted) : linearTicks(low, high, wanted),
  };
}

/**
 * The range of y worth showing, with a little air. PSNR keeps the top 20 dB, since the first steps would flatten the rest, and more,
 * up to 30, where a method stays below that.
 */
function valueRange(seriesList, metric) {
  let low = Infinity;
  let high = -Infinity;
  let lowestPeak = Infinity;
  for (const { y } of seriesList) {
    let peak = -Infinity;
    for (const v of y) if (Number.isFinite(v)) { if (v < low) low = v; if (v > peak) peak = v; }
    if (peak > high) high = peak;
    if (peak > -Infinity && peak < lowestPeak) lowestPeak = peak;
  }
  if (high < low) return null;
  const positive = metric === "residual" || metric === "objective" || metric === "learning";
  const log = positive && low > 0 && high / low > 20;
  if (metric === "psnr") low = Math.max(low, high - 30, Math.min(high - 20, lowestPeak - 3));
  if (high === low) { const air = Math.abs(high) * 0.05 || 1; return { low: low - air, high: high + air, log: false }; }
  if (log) return { low: low / 1.1, high: high * 1.1, log };
  const air = (high - low) * 0.06;
  return { low: positive || metric === "ssim" ? Math.max(Math.min(0, low), low - air) : low - air, high: high + air, log };
}

/** Move labels apart: wished heights in, heights out, at least `gap` apart and inside [top, bottom], order kept. */
function spreadLabels(wished, gap, top, bottom) {
  const order = wished.map((_, i) => i).sort((a, b) => wished[a] - wished[b]);
  const placed = new Array(wished.length);
  let floor = top;
  for (const i of order) { placed[i] = Math.max(wished[i], floor); floor = placed[i] + gap; }
  let ceiling = bottom;
  for (const i of order.reverse()) { placed[i] = Math.min(placed[i], ceiling); ceiling = placed[i] - gap; }
  return placed;
}

/** Vertices of a polyline with at most four per pixel column: first, lowest, highest, last, so that no extreme is lost. */
function thinPolyline(x, y, scaleX, scaleY) {
  const out = [];
  let column = null;
  let group = [];
  const flush = () => {
    if (group.length <= 4) { out.push(...group); return; }
    let [low, high] = [0, 0];
    for (let i = 1; i < group.length; i++) { if (group[i][1] < group[low][1]) low = i; if (group[i][1] > group[high][1]) high = i; }
    for (const i of [...new Set([0, Math.min(low, high), Math.max(low, high), group.length - 1])]) out.push(group[i]);
  };
  for (let i = 0; i < x.length; i++) {
    const px = scaleX.at(x[i]);
    if (Math.floor(px) !== column) { flush(); group = []; column = Math.floor(px); }
    group.push([px, scaleY.at(y[i])]);
  }
  flush();
  return out;
}

/** RGB of a perceptually even ramp, t in [0, 1]: OKLab lightness rises evenly from near black while the hue turns from blue to yellow. */
function rampColour(t) {
  const light = 0.14 + 0.82 * t;
  const chroma = 0.14 * Math.sin(Math.PI * Math.min(1, 0.1 + 0.86 * t)) + 0.03;
  const hue = ((285 + 180 * t) * Math.PI) / 180;
  const [a, b] = [chroma * Math.cos(hue), chroma * Math.sin(hue)];
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s, -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s];
  return linear.map((v) => Math.round(255 * Math.min(1, Math.max(0, v <= 0.0031308 ? 12.92 * v : 1.055 * Math.max(v, 0) ** (1 / 2.4) - 0.055))));
}
