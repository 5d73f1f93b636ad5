/** All hosts as a grid to see at a glance which are not well. Only what changed is drawn anew: there may be a thousand. */

import {h, link, show, to} from '../lib/dom.js';
import {plural} from '../lib/format.js';
import {chip, hostState} from './small.js';

const natural = new Intl.Collator('en', {numeric: true});

export class HostGrid {
  constructor() {
    this.element = h('ul', {class: 'hosts', role: 'list'});
    /** @type {Map<string, HTMLElement>} */
    this.drawn = new Map();
  }

  /** @param {any[]} hosts */
  update(hosts) {
    const most = Math.max(1, ...hosts.map((one) => one.endpoints));
    const kept = new Map();
    let place = this.element.firstElementChild;
    for (const host of [...hosts].sort((a, b) => natural.compare(a.name, b.name))) {
      const item = this.drawn.get(host.name) ?? h('li');
      this.draw(item, host, most);
      kept.set(host.name, item);
      if (item === place) place = place.nextElementSibling;
      else this.element.insertBefore(item, place);
    }
    for (const [name, item] of this.drawn) if (!kept.has(name)) item.remove();
    this.drawn = kept;
  }

  /** @param {HTMLElement} item @param {any} host @param {number} most */
  draw(item, {name, endpoints, lag_revisions: lag, ...host}, most) {
    const state = hostState({...host, lag_revisions: lag});
    const fill = Math.round((endpoints / most) * 100);
    item.className = state[0];
    show(item, [state, endpoints, lag, fill], () => [
      link('', to('hosts', name), {class: 'cover', 'aria-label': `${name}: ${state[1]}, ${plural(endpoints, 'endpoint')}`, 'data-focus': name}),
      h('strong', {}, name), chip(...state),
      h('span', {class: 'bar', 'aria-hidden': 'true'}, h('span', {class: 'fill', width: fill})),
      h('span', {class: 'muted'}, `${plural(endpoints, 'endpoint')}${lag ? `, ${lag} behind` : ''}`),
    ]);
  }
}
