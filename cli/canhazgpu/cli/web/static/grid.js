// The nodes are one stop of the tab key; the arrow keys, Home and End go from node to node.
let current = "";

function links() {
  return [...document.querySelectorAll("[data-grid] a.tile")];
}

export function keepGrid() {
  const all = links();
  if (!all.length) return;
  const chosen = all.find((one) => one.getAttribute("href") === current) ?? all[0];
  for (const one of all) one.tabIndex = one === chosen ? 0 : -1;
}

function columns(all) {
  const top = all[0].getBoundingClientRect().top;
  const second = all.findIndex((one) => one.getBoundingClientRect().top > top + 4);
  return second < 0 ? all.length : second;
}

document.addEventListener("keydown", (event) => {
  const tile = event.target.closest?.("[data-grid] a.tile");
  if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = links();
  const at = all.indexOf(tile);
  const to = {
    ArrowRight: at + 1,
    ArrowLeft: at - 1,
    ArrowDown: at + columns(all),
    ArrowUp: at - columns(all),
    Home: 0,
    End: all.length - 1,
  }[event.key];
  if (to === undefined || !all[to]) return;
  event.preventDefault();
  tile.tabIndex = -1;
  all[to].tabIndex = 0;
  current = all[to].getAttribute("href");
  all[to].focus();
});
