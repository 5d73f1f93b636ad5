/** Endpoints as a table, of a network or of a host. */

import {h} from '../lib/dom.js';
import {addressOrder} from '../lib/addresses.js';
import {ago, labelTexts} from '../lib/format.js';
import {refine} from '../lib/router.js';
import {addressLink, chip, endpointLink, endpointState, hostLink, joined, labelList, networkLink} from './small.js';
import {Table} from './table.js';

/** @param {any} port */
export const portText = (port) =>
  `${port.host_address ? `${port.host_address}:` : ''}${port.host_port ?? '-'} \u2192 ${port.port}/${port.protocol}`;

/** @param {import('../app.js').Context} context @param {{hasHost: boolean}} options */
export function endpointTable({place}, {hasHost}) {
  /** @type {import('./table.js').Column} */
  const where = hasHost
    ? {id: 'host', title: 'Host', value: (one) => one.host, cell: (one) => hostLink(one.host)}
    : {id: 'network', title: 'Network', value: (one) => one.network_name, cell: (one) => networkLink(one.network_name)};
  return new Table({
    caption: 'Endpoints', noun: 'endpoints', key: (one) => `${one.network}/${one.id}`,
    empty: 'There are no endpoints.',
    state: {sort: place.query.get('sort') ?? 'name', filter: place.query.get('filter') ?? ''},
    onState: (state) => refine({sort: state.sort ?? null, filter: state.filter ?? null}),
    columns: [
      {id: 'name', title: 'Name', value: (one) => [one.name, one.id, ...one.aliases], order: (one) => one.name, cell: (one) => endpointLink(one)},
      where,
      {id: 'address', title: 'Address', value: (one) => one.address, order: (one) => addressOrder(one.address), cell: (one) => one.address && addressLink(one.address)},
      {id: 'address6', title: 'IPv6', value: (one) => one.address6, order: (one) => addressOrder(one.address6), isMinor: true, cell: (one) => one.address6 && addressLink(one.address6)},
      {id: 'state', title: 'State', value: (one) => endpointState(one)[1], cell: (one) => chip(...endpointState(one))},
      {id: 'ports', title: 'Ports', value: (one) => one.ports.map(portText), isMinor: true, cell: (one) => joined(one.ports.map((/** @type {any} */ port) => h('span', {class: 'nowrap'}, portText(port))))},
      {id: 'labels', title: 'Labels', value: (one) => labelTexts(one.labels), isMinor: true, cell: (one) => labelList(one.labels)},
      {id: 'age', title: 'Age', value: (one) => -Date.parse(one.created_at), isMinor: true, cell: (one) => ago(one.created_at)},
    ],
  });
}
