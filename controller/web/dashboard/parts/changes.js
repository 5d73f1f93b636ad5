/** Changes as a list, newest first, each with who asked and what was before and after. */

import {h, link, show, to} from '../lib/dom.js';
import {differences, valueText} from '../lib/diff.js';
import {ago, clock} from '../lib/format.js';
import {keyOf} from '../live/shapes.js';

/** The name of what an event is about, as well as the event tells it. @param {any} event */
export function subjectOf(event) {
  const state = event.after ?? event.before ?? {};
  return state.name || state.holder || event.key.split('/').slice(1).join('/');
}

/** What is common to all objects of the store, and says nothing. */
const SILENT = new Set(['v']);

/** @param {any} event */
export function differencesOf(event) {
  return differences(event.before, event.after).filter(({path}) => !SILENT.has(path));
}

/** @param {any} event @param {any} world */
function subjectLink(event, world) {
  const text = subjectOf(event);
  const noun = event.kind.split('.')[0];
  const isGone = event.kind.endsWith('.deleted');
  const network = world.networks.get(event.network);
  if (noun === 'host' && !isGone) return link(text, to('hosts', event.key.split('/')[1]));
  if (!network) return text;
  if (noun === 'endpoint' && !isGone) return link(text, to('networks', network.name, 'endpoints', event.key.split('/')[2]));
  return noun === 'network' ? link(text, to('networks', network.name)) : text;
}

/** @param {any} event @param {any} world @param {boolean} [hasNetwork] */
function entry(event, world, hasNetwork = true) {
  const network = hasNetwork ? world.networks.get(event.network)?.name : null;
  const found = differencesOf(event);
  return h('details', {},
    h('summary', {},
      h('span', {class: 'at', title: event.at}, clock(event.at)),
      h('span', {class: `kind ${event.kind.split('.')[1]}`}, event.kind),
      h('span', {class: 'subject'}, subjectOf(event), network && event.kind.split('.')[0] !== 'network' ? ` in ${network}` : ''),
      h('span', {class: 'actor'}, event.actor)),
    h('p', {class: 'muted'}, subjectLink(event, world), ' - ', ago(event.at), ' ago - revision ', event.revision,
      event.request_id ? [' - request ', h('code', {}, event.request_id)] : null, event.source ? ` - from ${event.source}` : ''),
    found.length ? difference(found) : h('p', {class: 'muted'}, 'Nothing of the object differs.'));
}

/** @param {import('../lib/diff.js').Difference[]} found */
export const difference = (found) =>
  h('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'What changed'},
    h('table', {class: 'diff'},
      h('thead', {}, h('tr', {}, ['Field', 'Before', 'After'].map((title) => h('th', {scope: 'col'}, title)))),
      h('tbody', {}, found.map(({path, before, after}) =>
        h('tr', {}, h('th', {scope: 'row'}, path), h('td', {class: 'before'}, valueText(before)), h('td', {class: 'after'}, valueText(after)))))));

/** A list that grows at its top without touching what is opened in it. */
export class ChangeList {
  /** @param {any} world @param {{limit?: number, hasNetwork?: boolean, empty?: string}} [options] */
  constructor(world, options = {}) {
    this.world = world;
    this.options = options;
    this.list = h('ol', {class: 'changes'});
    this.nothing = h('p', {class: 'muted'});
    this.element = h('div', {}, this.nothing, this.list);
    /** @type {Map<string, HTMLElement>} */
    this.drawn = new Map();
  }

  /** @param {any[]} events newest first */
  update(events) {
    const wanted = events.slice(0, this.options.limit ?? 50);
    const kept = new Map();
    let place = this.list.firstElementChild;
    for (const event of wanted) {
      const key = keyOf(event);
      const item = this.drawn.get(key) ?? h('li', {}, entry(event, this.world, this.options.hasNetwork));
      kept.set(key, item);
      if (item === place) place = place.nextElementSibling;
      else this.list.insertBefore(item, place);
    }
    for (const [key, item] of this.drawn) if (!kept.has(key)) item.remove();
    this.drawn = kept;
    this.nothing.hidden = wanted.length > 0;
    show(this.nothing, this.options.empty, () => this.options.empty ?? 'Nothing happened yet.');
  }
}
