// Ansible managed
// The status page of a site: draws what its roles declare (site.json) from what Prometheus answers. No text of either becomes markup: all goes through
// textContent and setAttribute, and the Content-Security-Policy forbids the rest.

const RANGES = { "1h": ["1 hour", 3600], "6h": ["6 hours", 21600], "24h": ["24 hours", 86400], "7d": ["7 days", 604800] };
const REFRESH_S = 30;
const POINTS = 240;
const SCRAPE_S = 15;
const AT_ONCE = 6;
const MOST_SERIES = 40;
const MOST_LINES = 200;
const COLOURS = 8;
// Beside the colour, so that lines are told apart without it.
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const SEVERITIES = ["critical", "warning", "info"];
const LEVEL_OF_SEVERITY = { critical: "critical", warning: "warning", info: "neutral" };
const ICONS = {
  good: "M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0zM6.8 11.9 3.2 8.3l1.4-1.4 2.2 2.2 4.6-4.7 1.4 1.5z",
  warning: "M8 .8 16 15H0zM7.1 5.6v4.9h1.8V5.6zm0 6v1.8h1.8v-1.8z",
  critical: "M4.7 0h6.6L16 4.7v6.6L11.3 16H4.7L0 11.3V4.7zM4.6 3.2 3.2 4.6 6.6 8l-3.4 3.4 1.4 1.4L8 9.4l3.4 3.4 1.4-1.4L9.4 8l3.4-3.4-1.4-1.4L8 6.6z",
  neutral: "M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0zM4 7h8v2H4z",
};
const STANDS_FOR = { good: "good", warning: "warning", critical: "critical", neutral: "" };

let site;
let runbooks;
let view;
let selected = {};
let range = "6h";
let running = new AbortController();
let lastTry = 0;
let lastGood = 0;
let answeredBy = "";

// --- Elements ---------------------------------------------------------------------------------------------------------------------------------------

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function icon(level) {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[level], "fill-rule": "evenodd" }));
}

/** A text with the sign of its level; what says that it is bad to the eye says so to the ear. */
function levelled(level, text) {
  if (level === "neutral") return el("span", {}, text);
  return el("span", { class: `level ${level}` }, icon(level), el("span", {}, text, el("span", { class: "hidden" }, ` (${STANDS_FOR[level]})`)));
}

function badge(level, text) {
  return el("span", { class: `badge ${level}` }, icon(level), text);
}

// --- Numbers and times ------------------------------------------------------------------------------------------------------------------------------

function digits(value, decimals) {
  const size = Math.abs(value);
  const most = decimals ?? (size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(size))));
  return value.toLocaleString("en-GB", { minimumFractionDigits: decimals ?? 0, maximumFractionDigits: most });
}

function scaled(value, decimals, base, names) {
  let step = 0;
  while (Math.abs(value) >= base && step < names.length - 1) {
    value /= base;
    step += 1;
  }
  return [digits(value, step ? undefined : decimals), names[step]].filter(Boolean).join(" ");
}

function duration(seconds, decimals) {
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  if (size < 1e-3) return `${digits(seconds * 1e6, decimals)} µs`;
  if (size < 1) return `${digits(seconds * 1e3, decimals)} ms`;
  if (size < 60) return `${digits(seconds, decimals)} s`;
  if (size < 3600) return `${digits(seconds / 60, decimals)} min`;
  if (size < 86400) return `${digits(seconds / 3600, decimals)} h`;
  return `${digits(seconds / 86400, decimals)} d`;
}

function spell(seconds) {
  const sign = seconds < 0 ? "−" : "";
  const whole = Math.floor(Math.abs(seconds));
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = parts.findIndex(([number]) => number > 0);
  if (first < 0) return "0 s";
  return sign + parts.slice(first, first + 2).filter(([number]) => number > 0).map(([number, unit]) => `${number} ${unit}`).join(" ");
}

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const RATES = { reqps: "req/s", ops: "op/s", mps: "msg/s", pps: "packets/s", cps: "/s" };

function format(value, unit, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  switch (unit) {
    case "short": return scaled(value, decimals, 1000, ["", "K", "Mil", "Bil", "Tri"]);
    case "percentunit": return `${digits(value * 100, decimals)} %`;
    case "bytes": return scaled(value, decimals, 1024, BYTES);
    case "Bps": return scaled(value, decimals, 1024, BYTES.map((name) => `${name}/s`));
    case "s": return duration(value, decimals);
    case "ms": return duration(value / 1000, decimals);
    case "d": return `${digits(value, decimals)} d`;
    case "dtdurations": return spell(value);
    case "celsius": return `${digits(value, decimals)} °C`;
    case "watt": return scaled(value, decimals, 1000, ["W", "kW", "MW"]);
    default: return unit in RATES ? scaled(value, decimals, 1000, ["", "K", "Mil"].map((name) => `${name}${name && " "}${RATES[unit]}`)) : digits(value, decimals);
  }
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const CLOCK_S = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });

function at(formatter, seconds) {
  return formatter.format(new Date(seconds * 1000));
}

// --- Levels -----------------------------------------------------------------------------------------------------------------------------------------

function stateOf(value, states) {
  return (states ?? []).find((state) => state.value === value);
}

function levelOf(value, thresholds, states, otherwise = "good") {
  if (value === null || value === undefined) return "neutral";
  if (states) return stateOf(value, states)?.level ?? "neutral";
  if (!thresholds) return "neutral";
  const bad = (limit) => limit !== null && limit !== undefined && (thresholds.below ? value < limit : value >= limit);
  return bad(thresholds.critical) ? "critical" : bad(thresholds.warning) ? "warning" : otherwise;
}

function said(value, panel, query) {
  const states = query?.states ?? panel.states;
  return stateOf(value, states)?.text ?? format(value, query?.unit ?? panel.unit, panel.decimals);
}

/** What a reader of the thresholds has to know where a line of them is not in the picture. */
function limits(panel) {
  const { below, warning, critical } = panel.thresholds ?? {};
  const parts = [["warning", warning], ["critical", critical]].filter(([, limit]) => limit !== null && limit !== undefined);
  return parts.map(([level, limit]) => `${level} ${below ? "below" : "from"} ${format(limit, panel.unit)}`).join(", ");
}

// --- Prometheus -------------------------------------------------------------------------------------------------------------------------------------

/** What concerns the whole page, such as a Prometheus that is away, and not one question. */
class Trouble extends Error {}

let places = AT_ONCE;
const waiting = [];

async function inTurn(work) {
  if (places > 0) places -= 1;
  else await new Promise((resolve) => waiting.push(resolve));
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else places += 1;
  }
}

async function fetched(path, options) {
  let answer;
  try {
    answer = await fetch(`${location.origin}${path}`, { credentials: "same-origin", cache: "no-store", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The host of this page does not answer.");
  }
  if (answer.status === 401) throw new Trouble("The login is no longer valid. Reload the page to log in again.");
  if (answer.status === 429) throw new Trouble("Too many failed logins from this address. The page tries again by itself.");
  if (answer.status >= 500 && !(answer.headers.get("Content-Type") ?? "").includes("json")) {
    throw new Trouble(`No Prometheus of this site answers (${answer.status}).`);
  }
  return answer;
}

async function ask(path, parameters, signal) {
  return inTurn(async () => {
    if (signal.aborted) throw new DOMException("replaced by a newer one", "AbortError");
    const answer = await fetched(`/api/v1/${path}`, parameters ? { method: "POST", body: new URLSearchParams(parameters), signal } : { signal });
    answeredBy = answer.headers.get("Answered-By") ?? answeredBy;
    let body;
    try {
      body = await answer.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Trouble(`No Prometheus of this site gives a valid answer (${answer.status}).`);
    }
    if (body.status !== "success") throw new Error(body.error ?? `status ${answer.status}`);
    return body.data;
  });
}

function quoted(value) {
  return value.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&").replace(/[\\"]/g, "\\$&");
}

function filledIn(expr) {
  return expr.replace(/\$(\w+)/g, (_, name) => (selected[name] ? quoted(selected[name]) : ".*"));
}

function number(text) {
  return text === "NaN" ? null : Number(text.replace("Inf", "Infinity"));
}

async function instant(expr, time, signal) {
  const data = await ask("query", { query: filledIn(expr), time: String(time) }, signal);
  if (data.resultType === "scalar") return [{ labels: {}, value: number(data.result[1]) }];
  return data.result.map((one) => ({ labels: one.metric, value: number(one.value[1]) }));
}

/** The moments at which a range is asked: always the same ones, so that lines do not tremble from one refresh to the next. */
function momentsOf(time) {
  const length = RANGES[range][1];
  const step = Math.max(SCRAPE_S, Math.ceil(length / POINTS / SCRAPE_S) * SCRAPE_S);
  const end = Math.floor(time / step) * step;
  return { start: end - Math.floor(length / step) * step, end, step };
}

async function ranged(expr, moments, signal) {
  const { start, end, step } = moments;
  const data = await ask("query_range", { query: filledIn(expr), start: String(start), end: String(end), step: String(step) }, signal);
  const length = Math.round((end - start) / step) + 1;
  return data.result.map((one) => {
    const values = new Array(length).fill(null);
    for (const [moment, text] of one.values) {
      const value = number(text);
      values[Math.round((moment - start) / step)] = Number.isFinite(value) ? value : null;
    }
    return { labels: one.metric, values };
  });
}

function nameOf(labels, legend) {
  if (legend) return legend.replace(/\{(\w+)\}/g, (_, label) => labels[label] ?? "").trim() || legend.replace(/[{}]/g, "");
  return Object.entries(labels).filter(([label]) => label !== "__name__").map(([label, value]) => `${label} ${value}`).join(", ");
}

function byName(one, other) {
  return one.name.localeCompare(other.name, "en", { numeric: true });
}

async function seriesOf(panel, moments, signal) {
  const found = await Promise.all(panel.queries.map(async (query) => {
    const series = await ranged(query.expr, moments, signal);
    return series.map((one) => ({ ...one, name: nameOf(one.labels, query.legend) })).sort(byName);
  }));
  return found.flat().filter((one) => one.values.some((value) => value !== null));
}

async function valuesOf(panel, time, signal) {
  const found = await Promise.all(panel.queries.map(async (query) => {
    const values = await instant(query.expr, time, signal);
    return values.map((one) => ({ ...one, query, name: nameOf(one.labels, query.legend) })).sort(byName);
  }));
  return found.flat();
}

// --- Charts -----------------------------------------------------------------------------------------------------------------------------------------

function nice(size, base = 1) {
  const scale = base * 10 ** Math.floor(Math.log10(size / base));
  return [1, 2, 2.5, 5, 10].map((step) => step * scale).find((step) => step >= size * 0.999);
}

function scaleOf(panel, low, high) {
  let bottom = panel.minimum ?? Math.min(0, low);
  let top = Math.max(panel.maximum ?? high, panel.maximum === undefined ? high : 0);
  // A threshold that is near belongs into the picture; one that is far would flatten the lines.
  for (const limit of [panel.thresholds?.warning, panel.thresholds?.critical]) {
    if (limit !== null && limit !== undefined && limit > top && limit <= top * 1.6) top = limit;
  }
  if (top <= bottom) top = bottom + (panel.unit === "percentunit" ? 0.01 : 1);
  const unit = panel.unit === "bytes" || panel.unit === "Bps" ? 1024 ** Math.max(0, Math.floor(Math.log(top) / Math.log(1024)))
    : panel.unit === "s" && top >= 86400 ? 86400 : panel.unit === "s" && top >= 3600 ? 3600 : panel.unit === "s" && top >= 60 ? 60 : 1;
  const step = nice((top - bottom) / 4, unit);
  if (panel.maximum === undefined || high > panel.maximum) top = Math.ceil(top / step - 1e-9) * step;
  bottom = Math.floor(bottom / step + 1e-9) * step;
  const ticks = [];
  for (let tick = bottom; tick <= top + step / 1000; tick += step) ticks.push(Math.abs(tick) < step / 1000 ? 0 : tick);
  return { bottom, top, ticks };
}

const TICKS_S = [300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];

function timeTicks(moments, width) {
  const { start, end } = moments;
  const step = TICKS_S.find((one) => (end - start) / one <= Math.max(2, width / 85)) ?? 172800;
  const shift = new Date(end * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let tick = Math.ceil((start - shift) / step) * step + shift; tick <= end; tick += step) {
    const midnight = (tick - shift) % 86400 === 0;
    ticks.push([tick, step >= 86400 || (midnight && end - start >= 86400) ? at(DAY, tick) : at(CLOCK, tick)]);
  }
  return ticks;
}

/** A curve with a gap wherever there is no value. */
function path(points) {
  let text = "";
  let open = false;
  for (const point of points) {
    if (point === null) {
      open = false;
      continue;
    }
    text += `${open ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    open = true;
  }
  return text;
}

function looks(index) {
  return { class: `s${index % COLOURS}`, dash: DASHES[Math.floor(index / 2) % DASHES.length] };
}

function swatch(index) {
  const { class: colour, dash } = looks(index);
  return svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" }, svg("line", { x1: 0, x2: 26, y1: 4, y2: 4, class: colour, "stroke-width": 3, "stroke-dasharray": dash }));
}

function lastOf(values) {
  for (let index = values.length - 1; index >= Math.max(0, values.length - 3); index -= 1) if (values[index] !== null) return values[index];
  return null;
}

function highest(values) {
  return values.reduce((high, value) => (value !== null && (high === null || value > high) ? value : high), null);
}

function drawLines(panel, body, series, moments) {
  const drawn = series.slice(0, MOST_SERIES);
  const width = Math.max(220, body.clientWidth);
  const height = Math.max(120, panel.height * 20);
  const length = drawn[0].values.length;
  const sums = new Array(length).fill(0);
  const tops = drawn.map((one) => one.values.map((value, index) => (value === null ? null : panel.stack ? (sums[index] += value) : value)));
  const floors = drawn.map((one, number) => one.values.map((value, index) => (value === null ? null : panel.stack ? tops[number][index] - value : 0)));
  const all = tops.flat().filter((value) => value !== null);
  const scale = scaleOf(panel, Math.min(...all), Math.max(...all));
  const labels = scale.ticks.map((tick) => format(tick, panel.unit));
  const left = Math.min(92, 14 + Math.max(...labels.map((label) => label.length)) * 6.4);
  const [right, above, under] = [10, 8, 20];
  const x = (index) => left + (index / (length - 1)) * (width - left - right);
  const y = (value) => above + (1 - (value - scale.bottom) / (scale.top - scale.bottom)) * (height - above - under);
  const xOf = (moment) => x((moment - moments.start) / moments.step);

  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: 0 });
  const now = drawn.map((one) => `${one.name || panel.title} ${format(lastOf(one.values), panel.unit, panel.decimals)}`).slice(0, 8).join("; ");
  picture.setAttribute("aria-label", `${panel.title}: chart of ${series.length} series over ${RANGES[range][0]}. Now: ${now}. Arrow keys read values.`);
  scale.ticks.forEach((tick, index) => {
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "gridline" }));
    picture.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[index]));
  });
  for (const [tick, label] of timeTicks(moments, width - left)) {
    const place = xOf(tick);
    picture.append(svg("line", { x1: place, x2: place, y1: above, y2: height - under, class: "gridline" }));
    const anchor = place > width - 24 ? "end" : place < left + 12 ? "start" : "middle";
    picture.append(svg("text", { x: place, y: height - 5, "text-anchor": anchor }, label));
  }
  const lines = drawn.map((one, index) => {
    const { class: colour, dash } = looks(index);
    const group = svg("g", {});
    if (panel.stack) {
      // One area for each stretch without a gap.
      let stretch = [];
      const close = () => {
        if (stretch.length) {
          const back = stretch.map((at_) => [x(at_), y(floors[index][at_])]).reverse();
          group.append(svg("path", { class: `area ${colour}`, d: `${path([...stretch.map((at_) => [x(at_), y(tops[index][at_])]), ...back])}Z` }));
        }
        stretch = [];
      };
      tops[index].forEach((value, at_) => (value === null ? close() : stretch.push(at_)));
      close();
    }
    const points = tops[index].map((value, at_) => (value === null ? null : [x(at_), y(value)]));
    group.append(svg("path", { class: `line ${colour}`, d: path(points), "stroke-dasharray": dash }));
    // A value between two gaps is no line, and would not be seen.
    points.forEach((point, at_) => {
      if (point && !points[at_ - 1] && !points[at_ + 1]) group.append(svg("circle", { cx: point[0], cy: point[1], r: 2, class: colour }));
    });
    picture.append(group);
    return group;
  });
  for (const level of ["warning", "critical"]) {
    const limit = panel.thresholds?.[level];
    if (limit === null || limit === undefined || limit < scale.bottom || limit > scale.top) continue;
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(limit), y2: y(limit), class: `limit ${level}` }));
    picture.append(svg("text", { x: width - right, y: y(limit) < 20 ? y(limit) + 12 : y(limit) - 4, "text-anchor": "end", class: level }, level));
  }
  const cursor = svg("line", { y1: above, y2: height - under, class: "cursor", visibility: "hidden" });
  picture.append(cursor);
  const tip = el("div", { class: "tip", role: "status" });
  body.replaceChildren(picture, legendOf(panel, drawn, lines, series.length), tip);
  follow({ panel, picture, cursor, tip, drawn, moments, length, x, left, width, right });
}

/** Values at a moment: under the pointer, or with the arrow keys. */
function follow({ panel, picture, cursor, tip, drawn, moments, length, x, left, width, right }) {
  let place = length - 1;
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    tip.replaceChildren();
  };
  const show = (index) => {
    place = Math.min(length - 1, Math.max(0, index));
    cursor.setAttribute("x1", x(place));
    cursor.setAttribute("x2", x(place));
    cursor.setAttribute("visibility", "visible");
    const values = drawn.map((one, number) => [number, one.name || panel.title, one.values[place]]).filter(([, , value]) => value !== null);
    values.sort((one, other) => other[2] - one[2]);
    const rows = values.slice(0, 12).map(([number, name, value]) => el("p", {}, el("span", {}, swatchOf(number), name), el("strong", {}, format(value, panel.unit, panel.decimals))));
    const more = values.length > 12 ? el("p", { class: "soft" }, `and ${values.length - 12} lower ones`) : "";
    tip.replaceChildren(el("p", { class: "soft" }, at(MOMENT, moments.start + place * moments.step)), ...rows, rows.length ? "" : el("p", {}, "No data"), more);
    const share = picture.clientWidth / width;
    const where = picture.offsetLeft ?? 0;
    const near = x(place) * share;
    tip.style.top = `${picture.getBoundingClientRect().top - tip.offsetParent.getBoundingClientRect().top + 6}px`;
    tip.style.left = near < picture.clientWidth / 2 ? `${where + near + 24}px` : "auto";
    tip.style.right = near < picture.clientWidth / 2 ? "auto" : `${picture.clientWidth - near + 24}px`;
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const inside = ((event.clientX - box.left) / box.width) * width;
    show(Math.round(((inside - left) / (width - left - right)) * (length - 1)));
  });
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("blur", hide);
  picture.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -length, End: length }[event.key];
    if (event.key === "Escape") hide();
    if (steps === undefined) return;
    event.preventDefault();
    show(cursor.getAttribute("visibility") === "hidden" && Math.abs(steps) === 1 ? place : place + steps);
  });
}

function swatchOf(index) {
  const sign = swatch(index);
  sign.setAttribute("width", 22);
  sign.setAttribute("height", 8);
  return sign;
}

function legendOf(panel, drawn, lines, count) {
  const rows = drawn.map((one, index) => {
    const dim = (on) => lines.forEach((line, number) => line.classList.toggle("dim", on && number !== index));
    return el("tr", { onpointerenter: () => dim(true), onpointerleave: () => dim(false) },
      el("th", { scope: "row" }, swatch(index), one.name || panel.title),
      el("td", { class: "number" }, levelled(levelOf(lastOf(one.values), panel.thresholds, undefined, "neutral"), format(lastOf(one.values), panel.unit, panel.decimals))),
      el("td", { class: "number" }, format(highest(one.values), panel.unit, panel.decimals)));
  });
  const head = el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden" }, "Series")), el("th", { scope: "col", class: "number" }, "now"), el("th", { scope: "col", class: "number" }, "highest"));
  const note = count > drawn.length ? el("p", { class: "soft" }, `${count - drawn.length} more series are not drawn.`) : "";
  const long = drawn.length > 6;
  return el("div", { class: "legend", tabindex: long ? 0 : undefined, role: long ? "region" : undefined, "aria-label": long ? `Legend of ${panel.title}` : undefined },
    el("table", {}, el("caption", { class: "hidden" }, `${panel.title}, values`), el("thead", {}, head), el("tbody", {}, rows)), note);
}

function drawStates(panel, body, series, moments) {
  const length = series[0].values.length;
  const heights = { neutral: 8, good: 8, warning: 13, critical: 18 };
  const rows = series.slice(0, MOST_LINES).map((one) => {
    const strip = svg("svg", { viewBox: `0 0 ${length} 18`, preserveAspectRatio: "none", role: "img" }, svg("rect", { x: 0, y: 5, width: length, height: 8, class: "track" }));
    let begin = 0;
    let changes = 0;
    for (let index = 1; index <= length; index += 1) {
      if (index < length && one.values[index] === one.values[begin]) continue;
      const value = one.values[begin];
      if (value !== null) {
        const level = levelOf(value, panel.thresholds, panel.states);
        const from = moments.start + begin * moments.step;
        const title = svg("title", {}, `${said(value, panel)}, ${at(MOMENT, from)} to ${at(CLOCK, moments.start + (index - 1) * moments.step)}`);
        strip.append(svg("rect", { x: begin, y: 9 - heights[level] / 2, width: index - begin, height: heights[level], class: level }, title));
      }
      if (index < length) changes += 1;
      begin = index;
    }
    const now = lastOf(one.values);
    strip.setAttribute("aria-label", `${changes} changes in ${RANGES[range][0]}`);
    const word = now === null ? el("span", { class: "nothing" }, "no data") : levelled(levelOf(now, panel.thresholds, panel.states), said(now, panel));
    return el("tr", {}, el("th", { scope: "row" }, one.name || panel.title), el("td", { class: "strip" }, strip), el("td", { class: "now" }, word));
  });
  const long = rows.length > 14;
  const head = el("tr", {}, ["Series", "Course", "Now"].map((text) => el("th", { scope: "col" }, el("span", { class: "hidden" }, text))));
  body.replaceChildren(
    el("div", { class: "scroll", tabindex: long ? 0 : undefined }, el("table", { class: "states" }, el("caption", { class: "hidden" }, panel.title), el("colgroup", {}, el("col", { class: "name" }), el("col", {}), el("col", { class: "now" })), el("thead", {}, head), el("tbody", {}, rows))),
    el("div", { class: "ends", "aria-hidden": "true" }, el("span", {}, at(RANGES[range][1] > 86400 ? DAY : CLOCK, moments.start)), el("span", {}, at(CLOCK, moments.end))));
}

function drawHeat(panel, body, series, moments) {
  const bound = (one) => (one.labels.le === "+Inf" ? Infinity : Number(one.labels.le));
  const rows = [...series].sort((one, other) => bound(one) - bound(other));
  // Buckets hold those of the lower ones, too.
  const counts = rows.map((one, number) => one.values.map((value, index) => Math.max(0, (value ?? 0) - (number ? rows[number - 1].values[index] ?? 0 : 0))));
  const used = rows.map((one, number) => number).filter((number) => counts[number].some((count) => count > 0.01));
  if (!used.length) {
    nothing(body, "No observations in this time.");
    return;
  }
  const [low, high] = [used[0], used[used.length - 1]];
  const width = Math.max(220, body.clientWidth);
  const height = Math.max(120, panel.height * 20);
  const [left, under] = [64, 20];
  const columns = counts[0].length;
  const step = Math.ceil(columns / 120);
  const [wide, tall] = [(width - left - 6) / Math.ceil(columns / step), (height - under - 6) / (high - low + 1)];
  const cells = [];
  let most = 0;
  for (let row = low; row <= high; row += 1) {
    for (let column = 0; column < columns; column += step) {
      const count = counts[row].slice(column, column + step).reduce((sum, value) => sum + value, 0) / step;
      most = Math.max(most, count);
      if (count > 0.01) cells.push([row, column / step, count]);
    }
  }
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  const y = (row) => 6 + (high - row) * tall;
  for (const [row, column, count] of cells) {
    const title = svg("title", {}, `${format(count, "short")} up to ${format(bound(rows[row]), panel.unit)}, ${at(MOMENT, moments.start + column * step * moments.step)}`);
    picture.append(svg("rect", { class: "heat", x: left + column * wide, y: y(row), width: Math.max(1, wide + 0.3), height: Math.max(1, tall - 1), "fill-opacity": 0.12 + 0.88 * Math.sqrt(count / most) }, title));
  }
  const every = Math.ceil((high - low + 1) / Math.max(1, Math.floor(height / 18)));
  for (let row = low; row <= high; row += every) picture.append(svg("text", { x: left - 6, y: y(row) + 10, "text-anchor": "end" }, `≤ ${format(bound(rows[row]), panel.unit)}`));
  for (const [tick, label] of timeTicks(moments, width - left)) {
    picture.append(svg("text", { x: left + ((tick - moments.start) / (moments.end - moments.start)) * (width - left - 6), y: height - 5, "text-anchor": "middle" }, label));
  }
  const busiest = used.reduce((best, row) => (counts[row].reduce((a, b) => a + b, 0) > counts[best].reduce((a, b) => a + b, 0) ? row : best), used[0]);
  picture.setAttribute("aria-label", `${panel.title}: most lie up to ${format(bound(rows[busiest]), panel.unit)}.`);
  body.replaceChildren(picture, el("p", { class: "about" }, `The stronger the colour, the more; at most ${format(most, "short")}.`));
}

// --- Figures and tables -----------------------------------------------------------------------------------------------------------------------------

function nothing(body, text = "No data") {
  body.replaceChildren(el("p", { class: "nothing" }, text));
}

function drawFigures(panel, body, values) {
  if (values.length === 1) {
    const [{ value, name, query }] = values;
    const own = query.legend && name !== query.legend ? el("p", { class: "soft" }, name) : "";
    body.replaceChildren(el("p", { class: "big" }, levelled(levelOf(value, panel.thresholds, panel.states), said(value, panel, query))), own);
    return;
  }
  const rows = values.slice(0, MOST_LINES).flatMap((one) => [el("dt", {}, one.name || panel.title), el("dd", {}, levelled(levelOf(one.value, panel.thresholds, panel.states), said(one.value, panel, one.query)))]);
  body.replaceChildren(el("dl", { class: "many" }, rows));
}

function drawGauge(panel, body, values) {
  const low = panel.minimum ?? 0;
  const high = panel.maximum ?? 1;
  const arc = (share) => {
    const angle = Math.PI * (1 - Math.min(1, Math.max(0, share)));
    return `M10 80A70 70 0 0 1 ${(80 + 70 * Math.cos(angle)).toFixed(2)} ${(80 - 70 * Math.sin(angle)).toFixed(2)}`;
  };
  const gauges = values.map((one) => {
    const level = levelOf(one.value, panel.thresholds, panel.states);
    const share = (one.value - low) / (high - low);
    const picture = svg("svg", { viewBox: "0 0 160 88", "aria-hidden": "true" }, svg("path", { class: "track", d: arc(1) }), share > 0 ? svg("path", { class: level, d: arc(share) }) : "");
    return el("div", { class: "gauge" }, picture, el("p", { class: "big" }, levelled(level, said(one.value, panel, one.query))), one.name ? el("p", { class: "soft" }, one.name) : "");
  });
  body.replaceChildren(...gauges);
}

function tableOf(panel, values) {
  const lines = new Map();
  for (const one of values) {
    const key = JSON.stringify(panel.columns ? panel.columns.map(({ label }) => one.labels[label] ?? "") : [one.name]);
    if (!lines.has(key)) lines.set(key, { labels: one.labels, cells: new Map() });
    lines.get(key).cells.set(one.query, one.value);
  }
  const found = [...lines.values()];
  const heading = (panel.sort ?? "").replace(/^-/, "");
  const query = panel.queries.find((one) => one.legend === heading);
  const label = (panel.columns ?? []).find((one) => one.heading === heading)?.label ?? panel.columns?.[0]?.label;
  found.sort((one, other) => query
    ? (one.cells.get(query) ?? -Infinity) - (other.cells.get(query) ?? -Infinity)
    : (one.labels[label] ?? "").localeCompare(other.labels[label] ?? "", "en", { numeric: true }));
  return (panel.sort ?? "").startsWith("-") ? found.reverse() : found;
}

function drawTable(panel, body, values) {
  const lines = tableOf(panel, values);
  const columns = panel.columns ?? [];
  const head = [...columns.map((one) => el("th", { scope: "col" }, one.heading)), ...panel.queries.map((query) => el("th", { scope: "col", class: query.states ? "" : "number" }, query.legend))];
  const rows = lines.slice(0, MOST_LINES).map((line) => el("tr", {},
    columns.map((one, index) => el(index ? "td" : "th", { scope: index ? undefined : "row" }, line.labels[one.label] ?? "")),
    panel.queries.map((query) => {
      const value = line.cells.get(query);
      const states = query.states ?? panel.states;
      const level = levelOf(value, query.thresholds ?? panel.thresholds, states, "neutral");
      return el("td", { class: states ? "" : "number" }, levelled(level, value === undefined ? "–" : said(value, panel, query)));
    })));
  const note = lines.length > rows.length ? el("p", { class: "soft" }, `${lines.length - rows.length} more lines are not shown.`) : "";
  body.replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": panel.title },
    el("table", {}, el("caption", { class: "hidden" }, panel.title), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows))), note);
}

// --- Panels -----------------------------------------------------------------------------------------------------------------------------------------

const OVER_TIME = { timeseries: drawLines, state: drawStates, heatmap: drawHeat };
const NOW = { stat: drawFigures, gauge: drawGauge, table: drawTable };
/** Of these, nothing found means that all is well, or that nothing has happened. */
const EMPTY = { table: "No entries" };

/** A panel: its element, and how it is brought up to date. */
function panelOf(panel, role, { level = "h3", figure = false } = {}) {
  const body = el("div", { class: "body" }, el("p", { class: "nothing" }, "Loading …"));
  const leads = panel.role && panel.role !== role && titleOf(panel.role) ? el("a", { class: "leads", href: `#${panel.role}` }, titleOf(panel.role)) : "";
  const told = limits(panel) && panel.kind !== "state" ? `${limits(panel)}` : "";
  const about = [panel.description, told && `Limits: ${told}.`].filter(Boolean).join(" ");
  const element = el("section", { class: `panel ${panel.width <= 8 && panel.kind !== "timeseries" && panel.kind !== "table" ? "small" : ""}`, "data-kind": panel.kind, "aria-label": panel.title },
    el(level, { class: "title" }, panel.title, figure ? "" : leads),
    ...(figure
      // The figure first: what it means is there for those who ask.
      ? [body, el("p", { class: "about" }, el("span", { class: "hidden" }, panel.description ?? ""), told, leads)]
      : [about ? el("p", { class: "about" }, about) : "", body]));
  if (figure && panel.description) element.setAttribute("title", panel.description);
  element.style.gridColumn = `span ${panel.width}`;
  let draw = () => {};
  const load = async (time, signal) => {
    const moments = momentsOf(time);
    try {
      const found = panel.kind in OVER_TIME ? await seriesOf(panel, moments, signal) : await valuesOf(panel, time, signal);
      draw = () => {
        // What is read is not taken away from under the pointer or the keys.
        const held = body.contains(document.activeElement) && document.activeElement.classList.contains("chart");
        if (!found.length) nothing(body, EMPTY[panel.kind]);
        else if (panel.kind in OVER_TIME) OVER_TIME[panel.kind](panel, body, found, moments);
        else NOW[panel.kind](panel, body, found);
        if (held) body.querySelector(".chart")?.focus({ preventScroll: true });
      };
      if (signal.aborted) return;
      draw();
      element.dataset.drawn = found.length ? "data" : "empty";
      element.classList.remove("stale");
    } catch (error) {
      if (error.name === "AbortError") return;
      element.classList.add("stale");
      if (error instanceof Trouble) throw error;
      element.dataset.drawn = "error";
      body.replaceChildren(el("p", { class: "critical" }, `Prometheus refuses the question: ${error.message}`));
    }
  };
  return { element, load, redraw: () => draw() };
}

function rowsOf(rows, role, level = 2) {
  const panels = [];
  const elements = rows.map((row) => el("section", {}, el(`h${level}`, { class: "row" }, row.title), el("div", { class: "grid" }, row.panels.map((panel) => {
    const one = panelOf(panel, role, { level: `h${level + 1}` });
    panels.push(one);
    return one.element;
  }))));
  return { elements, panels };
}

function titleOf(role) {
  return site.dashboards.find((one) => one.role === role)?.title;
}

// --- The overview -----------------------------------------------------------------------------------------------------------------------------------

/** Titles of the role prometheus' dashboard that this view says by itself. */
const SAID = new Set(["Critical alerts", "Warnings", "Hosts down", "Services down", "Error budget left", "First certificate expires in", "Firing alerts"]);

/** Markdown as the runbooks have it: paragraphs, lists, code, and strong words. */
function prose(text) {
  return text.split(/\n{2,}|(?=```)|(?<=```\n)/).filter((part) => part.trim()).map((part) => {
    if (part.startsWith("```")) return el("pre", {}, part.replace(/```\w*\n?/g, ""));
    if (/^(-|\d+\.) /.test(part)) {
      return el(part.startsWith("-") ? "ul" : "ol", {}, part.split(/\n(?=-|\d+\.)/).map((item) => el("li", {}, words(item.replace(/^(-|\d+\.) /, "")))));
    }
    return el("p", {}, words(part));
  });
}

function words(text) {
  return text.replace(/\s+/g, " ").split(/(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/).map((part) => {
    if (part.startsWith("`") && part.length > 1) return el("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return el("strong", {}, part.slice(2, -2));
    return part.replace(/^\[([^\]]+)\]\([^)]+\)$/, "$1");
  });
}

function alertOf(alert, time) {
  const { alertname, severity = "info", instance, role, ...others } = alert.labels;
  const since = Date.parse(alert.activeAt) / 1000;
  const runbook = runbooks?.[alert.annotations.runbook];
  const where = [instance && `host ${instance}`, role && `role ${role}`, ...Object.entries(others).map(([name, value]) => `${name} ${value}`)].filter(Boolean).join(" · ");
  const level = LEVEL_OF_SEVERITY[severity] ?? "neutral";
  return el("li", { class: `alert level-${level}`, "data-alert": alertname, "data-severity": severity },
    el("div", { class: "head" }, badge(level, severity), el("strong", {}, alert.annotations.summary ?? alertname)),
    el("p", { class: "where" }, `${alertname}${where ? ` · ${where}` : ""} · for ${spell(time - since)}, since ${at(MOMENT, since)}`),
    runbook
      ? el("details", {}, el("summary", {}, `What to do: ${runbook.heading}`), el("div", {}, prose(runbook.text)))
      : alert.annotations.runbook ? el("p", { class: "where" }, `Runbook: ${alert.annotations.runbook}`) : "");
}

function gravest(one, other) {
  const rank = (alert) => (SEVERITIES.indexOf(alert.labels.severity) + SEVERITIES.length + 1) % (SEVERITIES.length + 1);
  return rank(one) - rank(other) || Date.parse(one.activeAt) - Date.parse(other.activeAt);
}

function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

function overview() {
  const main = el("div", {});
  const verdict = el("div", { class: "verdict neutral", role: "status" }, icon("neutral"), el("div", {}, "Loading …"));
  const alerts = el("div", {}, el("p", { class: "nothing" }, "Loading …"));
  const hosts = el("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": "Hosts" });
  const services = el("ul", { class: "services" });
  const figures = [];
  const tiles = el("div", { class: "figures" });
  const table = site.overview.rows.flatMap((row) => row.panels).find((panel) => panel.kind === "table");
  for (const panel of site.overview.rows.flatMap((row) => row.panels).filter((one) => one.kind !== "table")) {
    const one = panelOf(panel, "", { figure: true });
    figures.push(one);
    tiles.append(one.element);
  }
  const declared = site.dashboards.find((one) => one.role === "prometheus");
  const kept = (declared?.rows ?? []).map((row) => ({ ...row, panels: row.panels.filter((panel) => !SAID.has(panel.title)) })).filter((row) => row.panels.length);
  const { elements, panels } = rowsOf(kept, "prometheus", 3);
  const seen = el("div", {}, el("h2", {}, "Alerts"), alerts, el("h2", {}, "Figures"), tiles, el("h2", {}, "Hosts"), hosts, el("h2", {}, "Services"), services);
  main.append(el("h1", { tabindex: -1 }, `Site ${site.site}`), verdict, seen, el("h2", {}, "Charts"), ...elements);

  const load = async (time, signal) => {
    try {
      await shown(time, signal);
      if (!signal.aborted) seen.classList.remove("stale");
    } catch (error) {
      if (error.name === "AbortError") throw error;
      // What was well a minute ago may not be now.
      seen.classList.add("stale");
      drawVerdict("warning", "The state is not known now.", "What stands below is old, or missing.");
      throw error;
    }
  };
  const shown = async (time, signal) => {
    const [told, up, use, rules] = await Promise.all([
      ask("alerts", undefined, signal),
      instant("up", time, signal),
      table ? valuesOf(table, time, signal) : [],
      instant("sum by (instance) (prometheus_rule_group_rules)", time, signal),
    ]);
    if (signal.aborted) return;
    if (told.alerts.some((alert) => alert.annotations.runbook) && !runbooks) {
      runbooks = await (await fetched("/runbooks.json", { signal })).json();
    }
    const firing = told.alerts.filter((alert) => alert.state === "firing").sort(gravest);
    const pending = told.alerts.filter((alert) => alert.state === "pending").sort(gravest);
    drawAlerts(firing, pending, time);
    const down = drawHosts(up, use);
    drawServices(up);
    judge(firing, down, up.length > 0 && rules.length > 0);
  };

  const judge = (firing, down, watched) => {
    const numbers = SEVERITIES.map((severity) => [severity, firing.filter((alert) => (alert.labels.severity ?? "info") === severity).length]).filter(([, number]) => number);
    const names = Object.keys(site.hosts).length;
    const hostsSaid = down.length ? `${count(down.length, "host")} of ${names} not up: ${down.join(", ")}.` : `All ${names} hosts are up.`;
    const level = !watched ? "warning" : down.length || numbers.some(([severity]) => severity === "critical") ? "critical" : numbers.some(([severity]) => severity === "warning") ? "warning" : "good";
    const headline = !watched ? "Prometheus has no rules or no metrics yet: nothing is known." : numbers.length
      ? `${numbers.map(([severity, number]) => `${number} ${severity}`).join(", ")}: ${count(firing.length, "alert fires", "alerts fire")}.` : "No alert fires.";
    drawVerdict(level, headline, hostsSaid);
  };

  const drawVerdict = (level, headline, more) => {
    // Said aloud when it changes, not at each refresh.
    if (verdict.dataset.level === level && verdict.textContent === `${headline}${more}`) return;
    verdict.className = `verdict ${level}`;
    verdict.dataset.level = level;
    verdict.replaceChildren(icon(level), el("div", {}, el("strong", {}, headline), el("span", {}, more)));
  };

  const drawAlerts = (firing, pending, time) => {
    // What is being read stays open.
    const open = new Set([...alerts.querySelectorAll("details[open]")].map((one) => one.closest("[data-alert]")?.dataset.alert ?? "pending"));
    const list = firing.length ? el("ul", { class: "alerts" }, firing.map((alert) => alertOf(alert, time))) : el("p", { class: "soft" }, "None fires.");
    const more = pending.length ? el("details", { class: "more" }, el("summary", {}, `${count(pending.length, "alert")} may fire soon (the condition holds, but not for long enough)`),
      el("ul", { class: "alerts" }, pending.map((alert) => alertOf(alert, time)))) : "";
    alerts.replaceChildren(list, more);
    for (const one of alerts.querySelectorAll("details")) one.open = open.has(one.closest("[data-alert]")?.dataset.alert ?? "pending");
  };

  const drawHosts = (up, use) => {
    const gates = new Map(up.filter((one) => one.labels.job === "gate").map((one) => [one.labels.instance, one.value]));
    const targets = Map.groupBy ? Map.groupBy(up.filter((one) => one.labels.job !== "gate"), (one) => one.labels.instance) : grouped(up.filter((one) => one.labels.job !== "gate"));
    const down = [];
    const rows = Object.entries(site.hosts).sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true })).map(([host, groups]) => {
      const gate = gates.get(host);
      const own = targets.get(host) ?? [];
      const well = own.filter((one) => one.value === 1).length;
      if (gate !== 1) down.push(host);
      const state = gate === 1 ? badge("good", "up") : gate === 0 ? badge("critical", "down") : badge("warning", "unknown");
      const part = gate === 1 && own.length ? levelled(well === own.length ? "neutral" : "warning", `${well} of ${own.length} up`) : "–";
      const cells = (table?.queries ?? []).map((query, index) => {
        const value = use.find((one) => one.query === query && one.labels.instance === host)?.value;
        return el("td", { class: `number ${index > 2 ? "wide" : ""}` }, levelled(levelOf(value, query.thresholds, query.states, "neutral"), value === undefined ? "–" : said(value, table, query)));
      });
      return el("tr", { "data-host": host }, el("th", { scope: "row" }, host), el("td", {}, state), el("td", {}, part), cells, el("td", { class: "groups" }, groups.filter((one) => one !== "exporters").join(", ")));
    });
    const heads = [["Host", ""], ["State", ""], ["Services", ""], ...(table?.queries ?? []).map((query, index) => [query.legend, `number ${index > 2 ? "wide" : ""}`]), ["Groups", "groups"]];
    hosts.replaceChildren(el("table", { class: "hosts" }, el("caption", { class: "hidden" }, "Hosts of the site"),
      el("thead", {}, el("tr", {}, heads.map(([text, kind]) => el("th", { scope: "col", class: kind }, text)))), el("tbody", {}, rows)));
    return down;
  };

  const drawServices = (up) => {
    const roles = new Map();
    for (const one of up) if (one.labels.job !== "gate") roles.set(one.labels.role, [...(roles.get(one.labels.role) ?? []), one]);
    services.replaceChildren(...[...roles].sort(([one], [other]) => one.localeCompare(other)).map(([role, targets]) => {
      const well = targets.filter((one) => one.value === 1).length;
      const level = well === targets.length ? "good" : well ? "warning" : "critical";
      const away = targets.filter((one) => one.value !== 1).map((one) => one.labels.instance);
      const name = titleOf(role) ? el("a", { href: `#${role}` }, role) : el("span", {}, role);
      return el("li", { "data-service": role }, name, levelled(level, `${well} of ${targets.length} up`), away.length ? el("span", { class: "soft" }, `not: ${[...new Set(away)].join(", ")}`) : "");
    }));
    if (!roles.size) services.replaceChildren(el("li", {}, "No data"));
  };

  return { element: main, panels: [{ load, redraw: () => {} }, ...figures, ...panels], title: "Overview" };
}

function grouped(list) {
  const found = new Map();
  for (const one of list) found.set(one.labels.instance, [...(found.get(one.labels.instance) ?? []), one]);
  return found;
}

// --- A role's dashboard -----------------------------------------------------------------------------------------------------------------------------

function dashboardOf(declared) {
  const { elements, panels } = rowsOf(declared.rows, declared.role);
  const selects = declared.variables.map((variable) => {
    const select = el("select", { onchange: () => {
      if (select.value) selected[variable.name] = select.value;
      else delete selected[variable.name];
      remember();
    } }, el("option", { value: "" }, "all"));
    const load = async (time, signal) => {
      const values = await instant(`count by (${variable.label}) (${variable.series})`, time, signal).catch((error) => {
        if (error instanceof Trouble || error.name === "AbortError") throw error;
        return [];
      });
      if (signal.aborted) return;
      const names = new Set(values.map((one) => one.labels[variable.label]).filter(Boolean));
      // What was chosen stays a choice while its series are away.
      if (selected[variable.name]) names.add(selected[variable.name]);
      const wanted = ["", ...[...names].sort((one, other) => one.localeCompare(other, "en", { numeric: true }))];
      if (wanted.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
        select.replaceChildren(...wanted.map((name) => el("option", { value: name }, name || "all")));
      }
      select.value = selected[variable.name] ?? "";
    };
    return { element: el("label", {}, variable.title, select), load, redraw: () => {} };
  });
  const element = el("div", {}, el("h1", { tabindex: -1 }, declared.title), declared.description ? el("p", { class: "soft" }, declared.description) : "",
    selects.length ? el("div", { class: "variables" }, selects.map((one) => one.element)) : "", ...elements);
  return { element, panels: [...selects, ...panels], title: declared.title };
}

// --- The page ---------------------------------------------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function trouble(text) {
  const seen = lastGood ? ` Shown is the state of ${at(CLOCK_S, lastGood)}.` : "";
  $("trouble").replaceChildren(...(text ? [icon("critical"), el("span", {}, `${text}${seen}`)] : []));
}

async function refresh() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const time = Date.now() / 1000;
  lastTry = time;
  const done = await Promise.allSettled(view.panels.map((panel) => panel.load(time, signal)));
  if (signal.aborted) return;
  const failed = done.filter((one) => one.status === "rejected" && one.reason?.name !== "AbortError").map((one) => one.reason);
  const worst = failed.find((error) => error instanceof Trouble) ?? failed[0];
  if (worst) {
    if (!(worst instanceof Trouble)) console.warn(worst);
    trouble(worst instanceof Trouble ? worst.message : `Prometheus refuses a question: ${worst.message}.`);
  } else {
    lastGood = time;
    trouble("");
    $("freshness").textContent = `As of ${at(CLOCK_S, time)}${answeredBy ? `, from Prometheus ${answeredBy}` : ""}`;
  }
  document.body.dataset.refreshed = String(Math.round(time));
}

/** Keep page, range and selection in the address, so that it can be sent to somebody. */
function remember() {
  const parameters = new URLSearchParams({ range, ...selected });
  location.hash = `${view.role}?${parameters}`;
}

function show() {
  const [role, query = ""] = location.hash.slice(1).split("?");
  const parameters = new URLSearchParams(query);
  range = parameters.get("range") in RANGES ? parameters.get("range") : range;
  $("range").value = range;
  selected = {};
  const declared = site.dashboards.find((one) => one.role === role);
  for (const variable of declared?.variables ?? []) if (parameters.get(variable.name)) selected[variable.name] = parameters.get(variable.name);
  const same = view && view.role === (declared ? role : "overview");
  if (!same) {
    view = { ...(declared ? dashboardOf(declared) : overview()), role: declared ? role : "overview" };
    $("main").replaceChildren(view.element);
    document.title = `${view.title} – ${site.site} (${site.cluster})`;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === view.role) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    $("pages").value = view.role;
    if (document.body.dataset.refreshed) {
      scrollTo(0, 0);
      $("main").querySelector("h1").focus({ preventScroll: true });
    }
  }
  refresh();
}

function build() {
  $("site").textContent = `${site.site} · ${site.cluster}`;
  const pages = [["overview", "Overview"], ...site.dashboards.filter((one) => one.role !== "prometheus").map((one) => [one.role, one.title]).sort(([, one], [, other]) => one.localeCompare(other, "en"))];
  const go = (page) => {
    location.hash = `${page}?${new URLSearchParams({ range })}`;
  };
  $("menu").replaceChildren(...pages.map(([page, title]) => el("li", {}, el("a", { href: `#${page}`, "data-page": page, onclick: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(page);
  } }, title))));
  $("pages").replaceChildren(...pages.map(([page, title]) => el("option", { value: page }, title)));
  $("pages").addEventListener("change", () => go($("pages").value));
  $("range").replaceChildren(...Object.entries(RANGES).map(([name, [title]]) => el("option", { value: name }, title)));
  $("range").addEventListener("change", () => {
    range = $("range").value;
    remember();
  });
  $("again").addEventListener("click", refresh);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("main").focus();
  });
  addEventListener("hashchange", show);
  let width = innerWidth;
  let later;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(later);
    later = setTimeout(() => view.panels.forEach((panel) => panel.redraw()), 150);
  });
  const due = () => {
    if (document.visibilityState === "visible" && Date.now() / 1000 - lastTry >= REFRESH_S - 1) refresh();
  };
  setInterval(due, REFRESH_S * 1000);
  document.addEventListener("visibilitychange", due);
}

async function start() {
  try {
    site = await (await fetched("/site.json")).json();
  } catch (error) {
    trouble(error instanceof Trouble ? error.message : `The page's own data cannot be read: ${error.message}.`);
    setTimeout(start, REFRESH_S * 1000);
    return;
  }
  trouble("");
  build();
  show();
}

start();
