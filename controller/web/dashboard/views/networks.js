/** All networks: how full, where, and whether something is wrong. */

import {h} from '../lib/dom.js';
import {addressOrder} from '../lib/addresses.js';
import {ago, labelTexts, share} from '../lib/format.js';
import {refine} from '../lib/router.js';
import {CommandList} from '../parts/commands.js';
import {bar, chip, hostLink, joined, labelList, networkLink, networkState} from '../parts/small.js';
import {Table} from '../parts/table.js';

const MOST_HOSTS = 5;

/** @type {import('../parts/table.js').Column[]} */
const COLUMNS = [
  {id: 'name', title: 'Name', value: (one) => one.name || one.id, cell: (one) => networkLink(one.name || one.id)},
  {id: 'state', title: 'State', value: (one) => networkState(one)[1], cell: (one) => chip(...networkState(one))},
  {
    id: 'subnet', title: 'Subnets', value: (one) => one.subnets.map((/** @type {any} */ subnet) => subnet.cidr), order: (one) => addressOrder(one.subnets[0]?.cidr ?? null),
    cell: (one) => joined(one.subnets.map((/** @type {any} */ subnet) => h('span', {class: 'nowrap'}, subnet.cidr))),
  },
  {id: 'used', title: 'Used', value: (one) => share(one.used, one.size) + one.used / 1e12, cell: (one) => bar(one.used, one.size)},
  {id: 'endpoints', title: 'Endpoints', value: (one) => one.endpoints, isNumber: true},
  {id: 'hosts', title: 'Hosts', value: (one) => one.hosts, isMinor: true, cell: (one) => someHosts(one.hosts)},
  {id: 'driver', title: 'Driver', value: (one) => one.driver, isMinor: true},
  {id: 'labels', title: 'Labels', value: (one) => labelTexts(one.labels), isMinor: true, cell: (one) => labelList(one.labels)},
  {id: 'age', title: 'Age', value: (one) => -Date.parse(one.created_at), isMinor: true, cell: (one) => ago(one.created_at)},
];
/** @param {string[]} hosts */
function someHosts(hosts) {
  const more = hosts.length - MOST_HOSTS;
  return [joined(hosts.slice(0, MOST_HOSTS).map(hostLink)), more > 0 ? ` and ${more} more` : ''].flat();
}

/** @param {import('../app.js').Context} context @returns {import('../app.js').View} */
export function networksView({world, commands, place, main}) {
  const table = new Table({
    caption: 'Networks', noun: 'networks', columns: COLUMNS, key: (one) => one.id,
    empty: 'There are no networks. Make one: kvnet network create my-net',
    state: {sort: place.query.get('sort') ?? 'name', filter: place.query.get('filter') ?? ''},
    onState: (state) => refine({sort: state.sort ?? null, filter: state.filter ?? null}),
  });
  const list = new CommandList();
  main.append(h('h1', {}, 'Networks'), table.element, list.element);
  return {
    title: 'Networks',
    update() {
      if (world.isLoaded) table.update([...world.networks.values()]);
      list.update(commands.networks());
    },
  };
}
