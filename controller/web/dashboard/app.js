/**
 * Wires the page: the world and its stream, the views and their addresses, keys, banner and footer. Decides nothing
 * about what a view shows.
 *
 * A view is a function that gets the main element and a context, and answers {title, update, close}.
 * @typedef {{title: string, update: () => void, close?: () => void, refined?: (query: URLSearchParams) => void}} View
 * @typedef {{world: World, api: Api, commands: Commands, place: import('./lib/router.js').Place, main: HTMLElement}} Context
 */

import {Api} from './live/api.js';
import {Link} from './live/link.js';
import {Session} from './live/session.js';
import {World} from './live/world.js';
import {base, Commands} from './lib/commands.js';
import {tick} from './lib/format.js';
import {placeOf} from './lib/router.js';
import {Frame} from './parts/frame.js';
import {installKeys} from './parts/keys.js';
import {showLogin, showWho} from './parts/login.js';
import {views} from './views/index.js';

const api = new Api(base());
const session = new Session(api);
const commands = new Commands(base());
const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const frame = new Frame();
/** @type {View | null} */
let view = null;
let shownPath = '';
let isDue = false;
/** @type {Map<string, number>} how far a place was scrolled */
const scrolled = new Map();

const world = new World(api, () => {
  if (isDue) return;
  isDue = true;
  // A hidden page has no frames, and nobody who would see one.
  if (document.hidden) setTimeout(draw, 1000);
  else requestAnimationFrame(draw);
});

function draw() {
  isDue = false;
  frame.update(world);
  view?.update();
  document.title = view ? `${view.title} - kvnet` : 'kvnet';
}

/** @param {boolean} isMove somebody went here, rather than opened the page */
function go(isMove) {
  const place = placeOf(location.hash);
  if (view && place.path.join('/') === shownPath && view.refined) {
    view.refined(place.query);
    draw();
    return;
  }
  scrolled.set(shownPath, window.scrollY);
  view?.close?.();
  main.replaceChildren();
  shownPath = place.path.join('/');
  view = views(place.path)({world, api, commands, place, main});
  frame.mark(place.path);
  draw();
  if (place.path[0] !== 'search') /** @type {HTMLInputElement} */ (document.getElementById('query')).value = '';
  if (!isMove) return;
  const title = main.querySelector('h1');
  title?.setAttribute('tabindex', '-1');
  title?.focus({preventScroll: true});
  window.scrollTo(0, isBack ? (scrolled.get(shownPath) ?? 0) : 0);
  isBack = false;
}

let isBack = false;

/** For somebody who may look. */
function start() {
  showWho(/** @type {HTMLElement} */ (document.getElementById('who')), session);
  window.addEventListener('popstate', () => (isBack = true));
  document.addEventListener('click', () => (isBack = false), {capture: true});
  window.addEventListener('hashchange', () => go(true));
  document.addEventListener('visibilitychange', () => !document.hidden && draw());
  installKeys(main);
  let seconds = 0;
  setInterval(() => {
    if (document.hidden) return;
    tick();
    frame.update(world);
    // Some of what is shown depends on how long it has been so.
    if (++seconds % 5 === 0) draw();
  }, 1000);
  go(false);
  const link = new Link(`${base()}v1/events`, (message) => world.onMessage(message), (state, resumed) => {
    if (state === 'locked') return over();
    world.onLink(state, resumed);
  });
  session.onLeave = () => link.leave(true);
  api.onUnknown = over;
  link.open();
}

/** The login ended, by whatever: all that was known goes with the page. */
function over() {
  location.reload();
}

session.refusal().then((refusal) => (refusal ? showLogin(main, session, refusal) : start()));
