// Keeps a page up to date: an event says that the cluster was read again, the page is fetched, and
// what differs is replaced. Without events (too many viewers, a proxy that buffers) it asks by itself.
import { keepGrid } from "./grid.js";

const POLL_MS = 30000;
const WAIT_MAX_MS = 3000;
const status = document.getElementById("live");
const root = document.documentElement.dataset.root;
let lastTag = "";
let fetching = false;
let again = false;

function agoText(seconds) {
  if (seconds < 60) return `${Math.max(Math.round(seconds), 0)}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ago`;
  return `${Math.floor(seconds / 86400)}d ago`;
}

// The store's clock may differ from the viewer's: ages are counted from the state's own time.
let stateAt = Date.now();
let stateSeenAt = performance.now();

function noteStateTime(text) {
  const at = Date.parse(text);
  if (!Number.isNaN(at)) {
    stateAt = at;
    stateSeenAt = performance.now();
  }
}

function showAges(within = document) {
  const now = stateAt + (performance.now() - stateSeenAt);
  for (const time of within.querySelectorAll("time[data-ago]")) {
    const at = Date.parse(time.dateTime);
    if (!Number.isNaN(at)) {
      const text = agoText((now - at) / 1000);
      time.title = time.dateTime;
      if (time.textContent !== text) time.textContent = text;
    }
  }
}

// Replace the children of a part that differ, and keep those that do not: focus and scrolling stay.
function update(old, fresh) {
  const oldItems = keyed(old);
  const freshItems = keyed(fresh);
  if (oldItems && freshItems && sameKeys(oldItems, freshItems)) {
    for (const [id, item] of freshItems) {
      const before = oldItems.get(id);
      if (!before.isEqualNode(item)) {
        replace(before, item);
      }
    }
    return;
  }
  replace(old, fresh);
}

function keyed(part) {
  const grid = part.querySelector("[data-grid]");
  return grid && new Map([...grid.children].map((one) => [one.id, one]));
}

function sameKeys(one, other) {
  return one.size === other.size && [...other.keys()].every((id) => one.has(id));
}

function replace(before, after) {
  const focused = before.contains(document.activeElement) ? document.activeElement : null;
  const href = focused?.getAttribute("href");
  const tabindex = before.querySelector("a[tabindex]")?.getAttribute("tabindex");
  const fresh = document.adoptNode(after);
  if (tabindex && before.tagName === "LI") fresh.querySelector("a")?.setAttribute("tabindex", tabindex);
  before.replaceWith(fresh);
  if (before.tagName === "LI") fresh.classList.add("changed");
  if (href) [...fresh.querySelectorAll("a")].find((one) => one.getAttribute("href") === href)?.focus();
}

async function refresh() {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    const tag = answer.headers.get("etag");
    if (answer.status === 429 || (answer.status >= 500 && answer.status !== 503)) throw new Error(`status ${answer.status}`);
    const text = await answer.text();
    const page = new DOMParser().parseFromString(text, "text/html");
    const asOf = page.getElementById("as-of");
    if (asOf) noteStateTime(asOf.dateTime);
    if (!tag || tag !== lastTag) {
      showAges(page);
      for (const fresh of page.querySelectorAll("[data-live]")) {
        const old = document.getElementById(fresh.id);
        if (old && !old.isEqualNode(fresh)) update(old, fresh);
      }
      lastTag = tag;
      keepGrid();
    }
    const state = page.getElementById("state");
    if (state) document.getElementById("state").replaceChildren(...state.childNodes);
    say("");
  } catch (error) {
    say("This page could not be updated; trying again.");
  } finally {
    fetching = false;
    if (again) {
      again = false;
      soon();
    }
  }
}

// Many viewers hear of a state at once; they ask for it one after the other.
function soon() {
  setTimeout(refresh, Math.random() * Math.min(WAIT_MAX_MS, 300));
}

function say(text) {
  if (status.textContent !== text) status.textContent = text;
}

let timer = 0;
let source = null;

function connect() {
  source = new EventSource(`${root}/live`);
  source.addEventListener("state", () => soon());
  source.addEventListener("open", () => {
    clearInterval(timer);
    timer = 0;
  });
  source.addEventListener("error", () => {
    if (!timer) timer = setInterval(refresh, POLL_MS);
    if (source.readyState === EventSource.CLOSED) {
      say("Updated every half minute.");
      setTimeout(connect, POLL_MS * 2);
    } else {
      say("The connection is lost; trying again.");
    }
  });
}

const asOf = document.getElementById("as-of");
if (asOf) noteStateTime(asOf.dateTime);
showAges();
keepGrid();
setInterval(showAges, 5000);
// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    clearInterval(timer);
    timer = 0;
  } else {
    connect();
  }
});
if (!document.hidden) connect();
