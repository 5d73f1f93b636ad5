/** Keys that work everywhere, the search field, the link over the menu, and the help that tells of them. */

import {h, show} from '../lib/dom.js';

const KEYS = [
  ['/', 'find an address, a block or a name'],
  ['?', 'this help'],
  ['g o', 'overview'],
  ['g n', 'networks'],
  ['g h', 'hosts'],
  ['g e', 'events'],
  ['Tab, Shift+Tab', 'from one thing to the next'],
  ['Enter', 'follow a link; open what a map or graph points to'],
  ['Arrows, Home, End', 'move in an address map or a graph'],
  ['Esc', 'close this; leave a field'],
];
const PLACES = /** @type {Record<string, string>} */ ({o: '#/', n: '#/networks', h: '#/hosts', e: '#/events'});
const GO_MS = 3000;

/** @param {HTMLElement} main */
export function installKeys(main) {
  const query = /** @type {HTMLInputElement} */ (document.getElementById('query'));
  const form = /** @type {HTMLFormElement} */ (document.getElementById('search'));
  const skip = /** @type {HTMLElement} */ (document.getElementById('skip'));
  const keys = /** @type {HTMLElement} */ (document.getElementById('keys'));
  let goUntil = 0;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const asked = query.value.trim();
    if (asked) location.hash = `#/search?q=${encodeURIComponent(asked)}`;
  });
  skip.addEventListener('click', (event) => {
    event.preventDefault(); // the hash is the view's
    main.focus();
  });
  keys.addEventListener('click', help);
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && event.target === query) query.blur();
    if (isTyping(event.target)) return;
    if (performance.now() < goUntil && PLACES[event.key]) {
      location.hash = PLACES[event.key];
      goUntil = 0;
    } else if (event.key === '/') {
      event.preventDefault();
      query.focus();
      query.select();
    } else if (event.key === '?') help();
    else if (event.key === 'g') goUntil = performance.now() + GO_MS;
  });
}

/** @param {EventTarget | null} target */
const isTyping = (target) => target instanceof Element && target.matches('input, select, textarea, [contenteditable]');

function help() {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById('help'));
  show(dialog, 'help', () => [
    h('h2', {id: 'help-title'}, 'Keys and help'),
    h('dl', {class: 'keys'}, KEYS.map(([key, what]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, what)])),
    h('p', {}, 'Every view shows the command line and the request that say the same. Nothing can be changed here: use ',
      h('code', {}, 'kvnet'), ' or ', h('a', {href: 'docs'}, 'the HTTP API'), '.'),
    h('form', {method: 'dialog'}, h('button', {}, 'Close')),
  ]);
  for (const form of dialog.querySelectorAll('form')) {
    form.onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
    };
  }
  if (!dialog.open) dialog.showModal();
}
