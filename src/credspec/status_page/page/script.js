"use strict";
// Shows what the feed sends. All text is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const MOST_EVENTS = 500;
const HOUR = 3600e3;
// The axis of what comes next, from now on; each piece is as wide as the others.
const AXIS = [[0, "now"], [1, "1 h"], [4, "4 h"], [12, "12 h"], [48, "2 d"], [168, "7 d"], [720, "30 d"]];

let state = null;
let events = [];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "left" || name === "width") made.style[name] = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function duration(milliseconds) {
  const minutes = Math.max(0, Math.floor(milliseconds / 60e3));
  const days = Math.floor(minutes / 1440), hours = Math.floor(minutes / 60) % 24;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${minutes} min ${String(Math.floor(Math.max(0, milliseconds) / 1e3) % 60).padStart(2, "0")} s`;
}

const until = (moment) => new Date(moment) - Date.now();
const toCome = (moment) => (until(moment) > 0 ? `in ${duration(until(moment))}` : "now");

function leftOf(start, end) {
  if (!start || !end) return element("span", { class: "quiet" }, "none yet");
  const part = Math.min(1, Math.max(0, until(end) / (new Date(end) - new Date(start))));
  const low = part < 0.25 ? " low" : "";
  return element("div", { class: "left" },
    element("div", { class: `bar${low}`, "aria-hidden": "true" }, element("i", { width: `${100 * part}%` })),
    element("span", part ? {} : { class: "badge bad" }, part ? duration(until(end)) : "expired"));
}

function place(moment) {
  const hours = Math.max(0, until(moment) / HOUR);
  for (let i = 1; i < AXIS.length; i++) {
    const [from, to] = [AXIS[i - 1][0], AXIS[i][0]];
    if (hours <= to) return (100 * (i - 1 + (hours - from) / (to - from))) / (AXIS.length - 1);
  }
  return 100;
}

function nextOf(identity) {
  const axis = element("div", { class: "axis", "aria-hidden": "true" });
  AXIS.forEach(([hours], i) => axis.append(element("i", { class: "tick", left: `${(100 * i) / (AXIS.length - 1)}%` })));
  axis.append(element("i", { class: "mark track", width: `${place(identity.ticket.end)}%` }));
  const words = [];
  if (identity.refresh_at) {
    words.push(`acquired again ${toCome(identity.refresh_at)}`);
    axis.append(element("i", { class: "mark refresh", left: `${place(identity.refresh_at)}%` }));
  }
  if (identity.password_due) {
    words.push(`password rollover ${toCome(identity.password_due)}`);
    axis.append(element("i", { class: "mark password", left: `${place(identity.password_due)}%` }));
  }
  return element("div", { title: words.join(", ") }, axis, element("span", { class: "hidden" }, words.join(", ")));
}

function rows(id, list, columns, nothing) {
  const body = $(id);
  if (!list.length) {
    body.replaceChildren(element("tr", {}, element("td", { colspan: columns, class: "empty" }, nothing)));
    return;
  }
  body.replaceChildren(...list);
}

const cell = (content, kind) => element("td", kind ? { class: kind } : {}, content);
const withError = (content, error) => element("div", {}, content, error ? element("div", { class: "error" }, error) : null);
const nameOf = (identity) => `${identity.account}@${identity.domain}`;

function showIdentities() {
  const list = state.identities.map((identity) => element("tr", {},
    cell(withError(element("span", { class: "strong" }, nameOf(identity)), identity.last_error)),
    cell(String(identity.leases), "number"),
    cell(leftOf(identity.ticket.start, identity.ticket.end)),
    cell(nextOf(identity))));
  rows("identity-rows", list, 4, "No identities: no container has a lease.");
  const chosen = $("doctor-identity");
  const names = state.identities.map(nameOf);
  const there = [...chosen.options].slice(1).map((option) => option.value);
  if (names.join() !== there.join()) {
    const before = chosen.value;
    chosen.replaceChildren(element("option", { value: "" }, "this host"),
      ...names.map((name) => element("option", { value: name }, name)));
    chosen.value = names.includes(before) ? before : "";
  }
}

function showContainers() {
  const wanted = $("container-filter").value.trim().toLowerCase();
  const found = state.leases.filter((lease) =>
    [lease.container, lease.lease_id, lease.domain, ...lease.accounts].join(" ").toLowerCase().includes(wanted));
  const list = found.map((lease) => element("tr", {},
    cell(element("span", { class: "id", title: lease.container }, lease.container.slice(0, 12))),
    cell(lease.accounts.map((name) => (name.includes("@") ? name : `${name}@${lease.domain}`)).join(", ")),
    cell(element("span", { class: "badge" }, (lease.tickets ?? "tgt") + (lease.keytab ? " + keytab" : ""))),
    cell((lease.services ?? []).join(", ") || element("span", { class: "quiet" }, "any")),
    cell(leftOf(lease.ticket_start, lease.ticket_end)),
    cell(duration(-until(lease.created)), "nowrap")));
  rows("container-rows", list, 6, wanted ? "No container matches." : "No leases.");
  const all = state.counts.leases;
  const cut = all > state.leases.length ? `; ${state.leases.length} of ${all} are here, credspec status has all` : "";
  $("container-count").textContent = (wanted ? `${found.length} of ${state.leases.length}` : `${all}`) + cut;
}

function latencyOf(name) {
  const points = state.latencies[name] ?? [];
  if (points.length < 1) return element("span", { class: "quiet" }, "no reads yet");
  const space = "http://www.w3.org/2000/svg";
  const now = Math.floor(Date.now() / 60e3), most = Math.max(...points.map(([, value]) => value), 1);
  const x = (minute) => 200 - (now - minute) * (200 / 60), y = (value) => 30 - 26 * (value / most);
  const made = (tag, attributes) => {
    const node = document.createElementNS(space, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const picture = made("svg", { class: "latency", viewBox: "0 0 200 32", preserveAspectRatio: "none", role: "img" });
  picture.setAttribute("aria-label", `latency in the last hour: at most ${most} ms`);
  const line = points.map(([minute, value]) => `${x(minute).toFixed(1)} ${y(value).toFixed(1)}`);
  const only = points.length === 1 ? `M${(x(points[0][0]) - 4).toFixed(1)} ${y(points[0][1]).toFixed(1)}L` : "M";
  picture.append(made("line", { x1: 0, y1: 31, x2: 200, y2: 31 }), made("path", { d: only + line.join("L") }));
  return picture;
}

function showDomains() {
  const list = state.domains.map((domain) => element("tr", {},
    cell(withError(element("span", { class: "strong" }, domain.domain), domain.last_error)),
    cell(domain.controller ?? ""),
    cell(domain.outage_since
      ? element("span", { class: "badge bad" }, `no answer for ${duration(-until(domain.outage_since))}`)
      : element("span", { class: "badge good" }, "answers")),
    cell(domain.latency_seconds === null ? "" : `${Math.round(1000 * domain.latency_seconds)} ms`, "number"),
    cell(latencyOf(domain.domain))));
  rows("domain-rows", list, 5, "No domain was asked yet.");
}

function showState() {
  if (!state) return;
  const bad = state.error ? "bad" : state.hindrances.length ? "warn" : "good";
  $("pill").className = `pill ${bad}`;
  const down = state.since ? ` for ${duration(-until(state.since))}` : "";
  $("pill").textContent = state.error ? `agent does not answer${down}` : state.hindrances.length ? "agent has problems" : "agent is ready";
  const texts = [...state.hindrances.map((text) => [text, ""]), ...(state.error ? [[state.error, "bad"]] : [])];
  const shown = $("notices");
  if ([...shown.children].map((child) => child.textContent).join("\n") !== texts.map(([text]) => text).join("\n")) {
    shown.replaceChildren(...texts.map(([text, kind]) => element("p", { class: `notice ${kind}` }, text)));
  }
  for (const id of ["identities", "containers", "domains"]) $(id).classList.toggle("stale", Boolean(state.error));
  const silent = state.domains.filter((domain) => domain.outage_since).length;
  const least = state.identities.length ? Math.max(0, Math.min(...state.identities.map((each) => until(each.ticket.end)))) : null;
  const totals = [
    ["Identities", state.counts.identities, ""],
    ["Containers", state.counts.leases, ""],
    ["Domains that answer", `${state.domains.length - silent} of ${state.domains.length}`, silent ? "bad" : ""],
    ["Least of a ticket left", least === null ? "–" : duration(least), least === 0 ? "bad" : ""],
  ];
  $("totals").replaceChildren(...totals.map(([name, value, kind]) =>
    element("div", { class: kind }, element("dt", {}, name), element("dd", {}, String(value)))));
  showIdentities();
  showContainers();
  showDomains();
}

function showEvents() {
  const wanted = $("event-filter").value.trim().toLowerCase(), kind = $("event-kind").value;
  const found = events.filter((entry) =>
    (!kind || entry.source === kind || (kind === "warning" && entry.level !== "info")) &&
    `${entry.event} ${entry.text} ${entry.container ?? ""} ${entry.lease ?? ""}`.toLowerCase().includes(wanted));
  const list = found.map((entry) => element("tr", {},
    cell(element("time", { datetime: entry.time }, new Date(entry.time).toLocaleString("sv")), "nowrap"),
    cell(element("span", { class: `badge ${entry.level}` }, entry.event)),
    cell(entry.text, "what")));
  rows("event-rows", list.reverse(), 3, wanted || kind ? "No event matches." : "Nothing happened in the last day.");
  $("event-count").textContent = wanted || kind ? `${found.length} of ${events.length}` : `${events.length}`;
}

const STATES = { ok: ["ok", "good"], warning: ["warning", "warning"], failed: ["failed", "bad"], skipped: ["skipped", ""] };

function fixOf(problem) {
  const expected = problem.expected ? `; expected ${problem.expected}` : "";
  const where = problem.where ? `${problem.where}: ` : "";
  return [
    element("div", { class: "fix quiet" }, `${where}${problem.found}${expected} `, element("code", {}, `[${problem.code}]`)),
    problem.remedy ? element("div", { class: "fix" }, element("b", {}, "Fix: "), problem.remedy) : null,
  ];
}

function showDoctor(run) {
  $("doctor-run").disabled = run.running;
  if (run.running) {
    $("doctor-state").textContent = "The doctor runs; this takes some seconds.";
    return;
  }
  const at = `ended at ${new Date(run.ended).toLocaleTimeString("sv")}`;
  const verdict = run.first_cause ? `first cause: ${run.first_cause.title}` : "all is well";
  $("doctor-state").textContent = run.error ? run.error : `${verdict}; ${at}`;
  $("doctor-steps").replaceChildren(...(run.steps ?? []).map((step) => element("li", {},
    element("span", { class: `badge ${STATES[step.state][1]}` }, STATES[step.state][0]),
    element("span", { class: "what" }, element("b", { class: "strong" }, [step.step, step.subject].filter(Boolean).join(" ")),
      step.state === "failed" ? null : `: ${step.text}`),
    element("span", { class: "quiet nowrap" }, step.state === "skipped" ? "" : `${Math.round(step.milliseconds)} ms`),
    ...step.problems.flatMap(fixOf))));
}

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

function listen() {
  const feed = new EventSource("feed");
  const on = (name, show) => feed.addEventListener(name, (message) => show(JSON.parse(message.data)));
  feed.addEventListener("open", () => { events = []; });
  on("state", (sent) => { state = sent; showState(); });
  on("events", (sent) => { events = [...events, ...sent].slice(-MOST_EVENTS); showEvents(); });
  on("events_error", (text) => { $("events-error").hidden = false; $("events-error").textContent = text; });
  on("doctor", showDoctor);
  feed.addEventListener("error", () => {
    $("pill").className = "pill bad";
    $("pill").textContent = "credspec status --web has ended";
  });
}

const darkBySystem = matchMedia("(prefers-color-scheme: dark)");
useTheme(darkBySystem.matches ? "dark" : "light");
darkBySystem.addEventListener("change", (change) => useTheme(change.matches ? "dark" : "light"));
$("theme").addEventListener("click", () => useTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("event-filter").addEventListener("input", showEvents);
$("event-kind").addEventListener("change", showEvents);
$("container-filter").addEventListener("input", () => state && showContainers());
$("doctor-run").addEventListener("click", () => {
  const name = $("doctor-identity").value;
  fetch(name ? `doctor?identity=${encodeURIComponent(name)}` : "doctor", { method: "POST" })
    .then((answer) => answer.text())
    .then((text) => { if (text) $("doctor-state").textContent = text; });
});
document.addEventListener("keydown", (press) => {
  if (press.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    press.preventDefault();
    $("event-filter").focus();
  }
});
AXIS.forEach(([, name], i) => $("ticks").append(element("span", { left: `${(100 * i) / (AXIS.length - 1)}%` }, name)));
showEvents();
setInterval(showState, 5000); // times pass
listen();
