/** Which view an address means. */

import {h} from '../lib/dom.js';
import {endpointView} from './endpoint.js';
import {eventsView} from './events.js';
import {hostView} from './host.js';
import {hostsView} from './hosts.js';
import {networkView} from './network.js';
import {networksView} from './networks.js';
import {overviewView} from './overview.js';
import {searchView} from './search.js';

/** @typedef {import('../app.js').Context} Context */
/** @typedef {import('../app.js').View} View */

/** @param {string[]} path @returns {(context: Context) => View} */
export function views(path) {
  const [noun, name, part, id] = path;
  if (!noun) return overviewView;
  if (noun === 'networks' && part === 'endpoints' && id) return (context) => endpointView(context, name, id);
  if (noun === 'networks' && name && !part) return (context) => networkView(context, name);
  if (noun === 'networks' && !name) return networksView;
  if (noun === 'hosts' && name) return (context) => hostView(context, name);
  if (noun === 'hosts') return hostsView;
  if (noun === 'events') return eventsView;
  if (noun === 'search') return searchView;
  return nowhere;
}

/** @param {Context} context @returns {View} */
function nowhere({main, place}) {
  main.append(h('h1', {}, 'There is no such view'), h('p', {}, `Nothing is at "${place.text}". `, h('a', {href: '#/'}, 'Overview')));
  return {title: 'No such view', update() {}};
}
