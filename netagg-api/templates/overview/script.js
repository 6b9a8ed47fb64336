// The overview page requests parts of HTML from the API and shows them. The parts hold the data, so they need the key of the viewer.

const POLL_MS = 2000; // Pause between two requests for the same part
const RETRY_MS = 5000; // The same while the service does not answer
const TIMEOUT_MS = 15000;
const KEY = "netagg-key";
const TYPICAL = { tz: "UTC", granularity: "DAY", measure: "events" };

const base = new URL(".", import.meta.url);
const find = (id) => document.getElementById(id);
const [range, totalsForm, timelineForm] = ["range", "totals-form", "timeline-form"].map(find);
const forms = [range, totalsForm, timelineForm];

let key = sessionStorage.getItem(KEY);
// The cursors of the pages up to the current page of the timeline. The first page has none.
let cursors = [""];

// A part of the page: the path of its request, its parameters, and whether new data may change it.
function part(id, parameters, onShown) {
  const result = find(id);
  const error = find(`${id}-error`);
  let request = null;
  let timer = 0;

  const plan = (pause) => {
    clearTimeout(timer);
    timer = setTimeout(() => load(false), pause);
  };

  // Requests the part again. A request for the viewer is announced to screen readers, a regular one is not.
  async function load(isForViewer) {
    request?.abort();
    clearTimeout(timer);
    const query = parameters();
    if (query === null) return;
    if (document.hidden && !isForViewer) return plan(POLL_MS);
    const current = (request = new AbortController());
    const timeout = setTimeout(() => current.abort("timeout"), TIMEOUT_MS);
    try {
      const response = await fetch(new URL(`${id}?${new URLSearchParams(query)}`, base), {
        headers: key ? { authorization: `Bearer ${key}` } : {},
        cache: "no-cache",
        signal: current.signal,
      });
      const text = await response.text();
      if (current !== request) return;
      if (response.ok) {
        setAway("");
        error.hidden = true;
        show(text, isForViewer);
        plan(POLL_MS);
      } else {
        reject(response, text);
      }
    } catch {
      if (current !== request) return;
      setAway("The service cannot be reached.");
      plan(RETRY_MS);
    } finally {
      clearTimeout(timeout);
    }
  }

  function show(html, isForViewer) {
    const next = result.cloneNode();
    next.innerHTML = html;
    if (next.childNodes.length === result.childNodes.length) update(result, next);
    else result.replaceChildren(...next.childNodes);
    const summary = result.querySelector(".summary");
    onShown(summary);
    if (isForViewer) find("announcement").textContent = summary.textContent;
  }

  function reject(response, text) {
    const problem = parse(text);
    const detail = problem.detail ?? `status ${response.status}`;
    if (response.status === 401) {
      askForKey(key ? `The service does not accept the key: ${detail}.` : "The service needs a key.");
    } else if (response.status === 429 || response.status >= 500) {
      setAway(`The service cannot answer now: ${detail}.`);
      plan(RETRY_MS);
    } else {
      setAway("");
      clear();
      const wrong = problem.errors?.map((one) => `${one.parameter}: found ${one.found}; accepted: ${one.accepted}`);
      error.textContent = wrong?.join(". ") ?? detail;
      error.hidden = false;
    }
  }

  function clear() {
    result.replaceChildren();
    onShown(null);
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

// The parameters of a form. Empty fields are left out.
const values = (form) => [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);

const totals = part(
  "totals",
  () => {
    // The width of the chart, in steps, so that a small change draws nothing.
    const width = Math.min(1600, Math.max(240, Math.floor(find("totals").clientWidth / 40) * 40));
    return [...values(range), ...values(totalsForm), ["width", width]];
  },
  () => {},
);

const timeline = part(
  "timeline",
  () => {
    const user = values(timelineForm);
    if (!user.some(([name]) => name === "user_id")) return null;
    const cursor = cursors.at(-1);
    return [...values(range), ...user, ...(cursor ? [["cursor", cursor]] : [])];
  },
  (summary) => {
    find("pages").hidden = !summary || (cursors.length === 1 && !summary.dataset.next);
    find("page-number").textContent = `Page ${cursors.length}`;
    // A disabled button would lose the focus, so the buttons are only marked.
    find("newer").ariaDisabled = cursors.length === 1;
    find("older").ariaDisabled = !summary?.dataset.next;
  },
);

function setAway(reason) {
  const outage = find("outage");
  const isAway = reason !== "";
  const text = isAway ? `${reason} The page shows its last data and tries again every ${RETRY_MS / 1000} s.` : "";
  if (outage.textContent !== text) outage.textContent = text;
  outage.hidden = !isAway;
  document.body.classList.toggle("stale", isAway);
}

function askForKey(reason) {
  setAway("");
  totals.clear();
  timeline.clear();
  find("key-reason").textContent = reason;
  find("key").hidden = false;
  find("forget").hidden = true;
}

function setKey(text) {
  key = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
  find("key").reset();
  find("key").hidden = true;
  find("forget").hidden = !text;
  reload();
}

function reload() {
  totals.load(true);
  timeline.load(true);
}

// The state of the forms is in the fragment of the address, so that a view has an address and no server logs it.
function writeAddress() {
  const state = forms.flatMap(values).filter(([name, value]) => TYPICAL[name] !== value);
  history.replaceState(null, "", state.length ? `#${new URLSearchParams(state)}` : location.pathname + location.search);
}

function readAddress() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const field of forms.flatMap((form) => [...form.elements]).filter((field) => field.name)) {
    const value = state.get(field.name) ?? TYPICAL[field.name] ?? "";
    if (field.type === "radio") field.checked = field.value === value;
    else field.value = value;
  }
  cursors = [""];
}

function turn(button, move) {
  find(button).addEventListener("click", () => {
    if (find(button).ariaDisabled === "true") return;
    move(find("timeline").querySelector(".summary").dataset.next);
    timeline.load(true);
  });
}

range.addEventListener("change", () => {
  cursors = [""];
  writeAddress();
  reload();
});
totalsForm.addEventListener("change", () => {
  writeAddress();
  totals.load(true);
});
timelineForm.addEventListener("submit", () => {
  cursors = [""];
  writeAddress();
  timeline.clear();
  timeline.load(true);
});
for (const form of forms) form.addEventListener("submit", (event) => event.preventDefault());
find("key").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(event.target.elements.key.value.trim());
});
find("forget").addEventListener("click", () => setKey(null));
turn("older", (next) => cursors.push(next));
turn("newer", () => cursors.pop());
addEventListener("hashchange", () => {
  readAddress();
  reload();
});

for (const name of Intl.supportedValuesOf?.("timeZone") ?? []) find("zones").append(new Option("", name));
readAddress();
find("forget").hidden = !key;
reload();
