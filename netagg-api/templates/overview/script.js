// The overview page requests parts of HTML from the API and shows them. The parts hold the data, so they need the key of the viewer.

const POLL_MS = 2000; // Pause between two requests for the same part
const RETRY_MS = 5000; // The shortest pause while the service does not answer
const LONGEST_RETRY_MS = 3600000;
const TIMEOUT_MS = 15000;
const KEY = "netagg-key";
const DEFAULTS = { from: "", to: "", tz: "UTC", granularity: "DAY", measure: "events", user_id: "", type: "" };

const base = new URL(".", import.meta.url);
const find = (id) => document.getElementById(id);
const forms = ["range", "totals-form", "timeline-form"].map(find);

let key = sessionStorage.getItem(KEY);
// The choices that the viewer has confirmed. A form may hold text that the viewer is still typing.
let choices = { ...DEFAULTS };
// The cursors of the pages up to the page that is shown, and up to the page that is requested. The first page has none.
let cursors = [""];
let wanted = cursors;

const chosen = (...names) => names.map((name) => [name, choices[name]]).filter(([, value]) => value);

// Sets a text only if it changes, so that a screen reader says it once.
function say(id, text) {
  if (find(id).textContent !== text) find(id).textContent = text;
  find(id).hidden = text === "";
}

// A part of the page. `parameters` returns the query, or null if there is nothing to request. `onShown` gets the summary, or
// null if the part is empty. It returns the place in the list, for screen readers.
function part(id, { parameters, cache, onShown }) {
  const result = find(id);
  let request = null;
  let timer = 0;
  let isAwaited = false; // The viewer waits for a response, or sees an outage. Then the part is requested also without live updates.

  function stop() {
    request?.abort();
    request = null;
    clearTimeout(timer);
  }

  function clear() {
    stop();
    isAwaited = false;
    find(`${id}-status`).textContent = "";
    result.replaceChildren();
    result.classList.remove("stale");
    say(`${id}-error`, "");
    onShown(null);
  }

  const plan = (pause) => {
    timer = setTimeout(() => load(false), pause);
  };

  // Requests the part again. A request for the viewer is announced to screen readers, a regular one is not.
  async function load(isForViewer) {
    stop();
    const query = parameters();
    if (query === null) return clear();
    isAwaited ||= isForViewer;
    if (!isForViewer && (document.hidden || !(isAwaited || find("live").checked))) return plan(POLL_MS);
    const current = (request = new AbortController());
    const timeout = setTimeout(() => current.abort(), TIMEOUT_MS);
    const url = new URL(`${id}?${new URLSearchParams(query)}`, base);
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    let response = null;
    let text = "";
    try {
      response = await fetch(url, { headers, cache, signal: current.signal });
      text = await response.text();
    } catch {
      response = null;
    } finally {
      clearTimeout(timeout);
    }
    // A newer request, or the end of this one, has made the response useless.
    if (current !== request) return;
    if (response?.ok) {
      say(`${id}-error`, "");
      result.classList.remove("stale");
      show(text);
      plan(POLL_MS);
    } else {
      reject(response, parse(text), isForViewer);
    }
  }

  function show(html) {
    const next = result.cloneNode();
    next.innerHTML = html;
    if (next.childNodes.length === result.childNodes.length) update(result, next);
    else result.replaceChildren(...next.childNodes);
    const summary = result.querySelector(".summary");
    const place = onShown(summary);
    if (isAwaited) find(`${id}-status`).textContent = `${summary.textContent} ${place}`;
    isAwaited = false;
  }

  function reject(response, problem, isForViewer) {
    if (response?.status === 401) {
      const reason = key ? `The service does not accept the key: ${problem.detail ?? 401}.` : "The service needs a key.";
      askForKey(reason, isForViewer);
    } else if (!response || response.status === 429 || response.status >= 500) {
      const reason = response ? `The service cannot answer now: ${problem.detail ?? response.status}.` : "The service cannot be reached.";
      // A date instead of seconds is not a number.
      const seconds = Number(response?.headers.get("retry-after")) || 0;
      const pause = Math.min(LONGEST_RETRY_MS, Math.max(RETRY_MS, 1000 * seconds));
      isAwaited = true;
      const kept = result.hasChildNodes() ? " The page keeps its last data." : "";
      say(`${id}-error`, `${reason}${kept} It tries again every ${pause / 1000} s.`);
      result.classList.toggle("stale", result.hasChildNodes());
      plan(pause);
    } else {
      clear();
      const wrong = problem.errors?.map((one) => `${one.parameter}: found ${one.found}; accepted: ${one.accepted}`);
      say(`${id}-error`, wrong?.join(". ") ?? problem.detail ?? `The service rejects the request with status ${response.status}.`);
    }
  }

  return { load, clear };
}

// Replaces only the nodes that have changed. So the focus, the selection and the position of a scrolled table stay.
function update(current, next) {
  if (current.isEqualNode(next)) return;
  const isSameElement = current.cloneNode().isEqualNode(next.cloneNode());
  if (!isSameElement || current.childNodes.length !== next.childNodes.length || !next.hasChildNodes()) {
    current.replaceWith(next);
  } else {
    [...next.childNodes].forEach((child, at) => update(current.childNodes[at], child));
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

const totals = part("totals", {
  parameters: () => {
    // The width of the chart, in steps, so that a small change draws nothing.
    const width = Math.min(1600, Math.max(240, Math.floor(find("totals").clientWidth / 40) * 40));
    return [...chosen("from", "to", "tz", "granularity", "measure"), ["width", width]];
  },
  cache: "no-cache",
  onShown: () => "",
});

const timeline = part("timeline", {
  parameters: () => {
    if (!choices.user_id) return null;
    const cursor = wanted.at(-1);
    return [...chosen("from", "to", "tz", "user_id", "type"), ...(cursor ? [["cursor", cursor]] : [])];
  },
  // The events of a user do not stay on the disk of the viewer.
  cache: "no-store",
  onShown: (summary) => {
    cursors = wanted = summary ? wanted : [""];
    const next = summary?.dataset.next;
    find("pages").hidden = !summary || (cursors.length === 1 && !next);
    find("page-number").textContent = `Page ${cursors.length}`;
    // A disabled button would lose the focus, so the buttons are only marked.
    find("newer").ariaDisabled = cursors.length === 1;
    find("older").ariaDisabled = !next;
    return find("pages").hidden ? "" : `Page ${cursors.length}.`;
  },
});

function reload() {
  totals.load(true);
  timeline.load(true);
}

// Shows the form for a key. The focus goes there only after an action of the viewer: a poll must not interrupt typing.
function askForKey(reason, isForViewer) {
  forgetKey();
  find("key").hidden = false;
  find("forget").hidden = true;
  say("key-reason", reason);
  if (isForViewer) find("key").elements.key.focus();
}

function forgetKey() {
  key = null;
  sessionStorage.removeItem(KEY);
  totals.clear();
  timeline.clear();
}

function setKey(text) {
  forgetKey();
  key = text;
  if (text) sessionStorage.setItem(KEY, text);
  find("key").reset();
  find("key").hidden = true;
  find("forget").hidden = !text;
  find("totals-title").focus();
  reload();
}

// Takes the choices of `form` over. The address gets them behind its #, so that a link shows the same view.
function confirm(form) {
  const data = new FormData(form);
  // A group has no value if the address had a wrong one. Then the wrong value stays, so that its error stays.
  for (const { name } of form.elements) if (name) choices[name] = data.get(name)?.trim() ?? choices[name];
  const changed = Object.entries(choices).filter(([name, value]) => value !== DEFAULTS[name]);
  const address = location.pathname + location.search;
  history.replaceState(null, "", changed.length ? `#${new URLSearchParams(changed)}` : address);
}

function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) choices[name] = address.get(name) ?? DEFAULTS[name];
  for (const field of forms.flatMap((form) => [...form.elements]).filter((field) => field.name)) {
    if (field.type === "radio") field.checked = field.value === choices[field.name];
    else field.value = choices[field.name];
  }
  timeline.clear();
  reload();
}

// Requests another page, unless the viewer already waits for one.
function turn(button, pages) {
  find(button).addEventListener("click", () => {
    if (find(button).ariaDisabled === "true" || wanted !== cursors) return;
    wanted = pages(find("timeline").querySelector(".summary").dataset.next);
    timeline.load(true);
  });
}

const [range, totalsForm, timelineForm] = forms;
for (const form of [...forms, find("key")]) form.addEventListener("submit", (event) => event.preventDefault());
range.addEventListener("submit", () => {
  confirm(range);
  timeline.clear();
  reload();
});
totalsForm.addEventListener("change", () => {
  confirm(totalsForm);
  totals.load(true);
});
timelineForm.addEventListener("submit", () => {
  confirm(timelineForm);
  timeline.clear();
  timeline.load(true);
});
find("key").addEventListener("submit", () => {
  const text = find("key").elements.key.value.trim();
  if (/^[\x21-\x7e]+$/.test(text)) setKey(text);
  else say("key-reason", "The key has a character that no key has. Accepted: letters, digits and punctuation of ASCII.");
});
find("forget").addEventListener("click", () => setKey(null));
turn("older", (next) => [...cursors, next]);
turn("newer", () => cursors.slice(0, -1));
addEventListener("hashchange", readAddress);

for (const name of Intl.supportedValuesOf?.("timeZone") ?? []) find("zones").append(new Option("", name));
find("forget").hidden = !key;
readAddress();
