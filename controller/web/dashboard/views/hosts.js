/** All hosts: a grid to see at a glance which are not well, and the same as a table. */

import {h} from '../lib/dom.js';
import {ago} from '../lib/format.js';
import {refine} from '../lib/router.js';
import {problemsOf} from '../live/shapes.js';
import {CommandList} from '../parts/commands.js';
import {chip, hostLink, hostState, joined, networkLink, section} from '../parts/small.js';
import {HostGrid} from '../parts/hostgrid.js';
import {Table} from '../parts/table.js';

const MOST_NETWORKS = 4;

/** @type {import('../parts/table.js').Column[]} */
const COLUMNS = [
  {id: 'name', title: 'Name', value: (one) => one.name, cell: (one) => hostLink(one.name)},
  {id: 'state', title: 'State', value: (one) => hostState(one)[1], cell: (one) => chip(...hostState(one))},
  {id: 'seen', title: 'Last seen', value: (one) => (one.alive ? 'now' : one.last_seen), cell: (one) => (one.alive ? 'now' : ago(one.last_seen, 'never'))},
  {id: 'lag', title: 'Behind', value: (one) => one.lag_revisions, isNumber: true},
  {id: 'endpoints', title: 'Endpoints', value: (one) => one.endpoints, isNumber: true},
  {id: 'networks', title: 'Networks', value: (one) => one.networks, isMinor: true, cell: (one) => someNetworks(one.networks)},
  {id: 'problems', title: 'Problems', value: (one) => problemsOf(one).map((p) => p.reason)},
  {id: 'underlay', title: 'Underlay', value: (one) => one.underlay, isMinor: true},
  {id: 'versions', title: 'kvnet, kernel', value: (one) => `${one.kvnet_version || '-'}, ${one.kernel || '-'}`, isMinor: true},
];

/** @param {string[]} networks */
function someNetworks(networks) {
  const more = networks.length - MOST_NETWORKS;
  return [joined(networks.slice(0, MOST_NETWORKS).map(networkLink)), more > 0 ? ` and ${more} more` : ''].flat();
}

/** @param {import('../app.js').Context} context @returns {import('../app.js').View} */
export function hostsView({world, commands, place, main}) {
  const grid = new HostGrid();
  const table = new Table({
    caption: 'Hosts', noun: 'hosts', columns: COLUMNS, key: (one) => one.name,
    empty: 'There are no hosts. A worker registers itself: kvnet worker --controller URL --host NAME',
    state: {sort: place.query.get('sort') ?? 'name', filter: place.query.get('filter') ?? ''},
    onState: (state) => refine({sort: state.sort ?? null, filter: state.filter ?? null}),
  });
  const list = new CommandList();
  main.append(h('h1', {}, 'Hosts'), section('At a glance', grid.element), section('As a table', table.element), list.element);
  return {
    title: 'Hosts',
    update() {
      const hosts = [...world.hosts.values()];
      if (world.isLoaded) {
        grid.update(hosts);
        table.update(hosts);
      }
      list.update(commands.hosts());
    },
  };
}
