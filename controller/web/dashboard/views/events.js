/** What happens, as it happens: filtered, held still, and with what was before and after. */

import {h, show} from '../lib/dom.js';
import {plural} from '../lib/format.js';
import {refine} from '../lib/router.js';
import {History} from '../live/history.js';
import {keyOf} from '../live/shapes.js';
import {ChangeList, subjectOf} from '../parts/changes.js';
import {CommandList} from '../parts/commands.js';

const SHOWN = 200;
const KINDS = ['', 'network', 'endpoint', 'host', 'reservation', 'pool', 'hold', 'block'];

/** @param {import('../app.js').Context} context @returns {import('../app.js').View} */
export function eventsView({world, commands, place, main}) {
  const state = {kind: place.query.get('kind') ?? '', text: place.query.get('filter') ?? '', held: /** @type {any[] | null} */ (null)};
  const history = new History(world, {}, () => true);
  const changes = new ChangeList(world, {limit: SHOWN, empty: 'Nothing that fits happened.'});
  const list = new CommandList();
  const count = h('span', {role: 'status', class: 'count'});
  const kind = h('select', {'aria-label': 'Kind of object', on: {change: () => turn({kind: /** @type {any} */ (kind).value})}},
    KINDS.map((one) => h('option', {value: one, selected: one === state.kind}, one || 'everything')));
  const text = h('input', {type: 'search', placeholder: 'Filter: name, actor, request, kind', 'aria-label': 'Filter events', value: state.text, on: {input: () => turn({text: /** @type {any} */ (text).value})}});
  const hold = h('button', {type: 'button', 'aria-pressed': 'false', on: {click: () => pause()}}, 'Pause');
  const since = world.revision;

  /** @param {Partial<typeof state>} change */
  function turn(change) {
    Object.assign(state, change);
    refine({kind: state.kind, filter: state.text});
    view.update();
  }

  function pause() {
    state.held = state.held ? null : history.changes();
    hold.setAttribute('aria-pressed', String(Boolean(state.held)));
    hold.textContent = state.held ? 'Go on' : 'Pause';
    view.update();
  }

  const view = {
    title: 'Events',
    update() {
      const all = state.held ?? history.changes();
      const found = all.filter((event) => fits(event, state, world));
      changes.update(found);
      const missed = state.held ? history.changes().length - state.held.length : 0;
      const words = `${plural(Math.min(found.length, SHOWN), 'event')}${missed > 0 ? `, ${missed} more while paused` : ''}`;
      show(count, words, () => words);
      list.update(commands.events(since || world.revision));
    },
  };
  main.append(h('h1', {}, 'Events'), h('div', {class: 'tools'}, kind, text, hold, count), changes.element, list.element);
  return view;
}

/** @param {any} event @param {{kind: string, text: string}} wanted @param {any} world */
function fits(event, wanted, world) {
  if (wanted.kind && event.kind.split('.')[0] !== wanted.kind) return false;
  const network = world.networks.get(event.network)?.name ?? '';
  const text = [event.kind, subjectOf(event), event.actor, event.request_id, event.source, network, keyOf(event)].join('\n').toLowerCase();
  return wanted.text.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
