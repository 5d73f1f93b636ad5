/** Who has which address of a network: a map for each subnet, and the same as a table. */

import {h, show} from '../lib/dom.js';
import {addressOrder, contains, parseAddress, parseBlock} from '../lib/addresses.js';
import {AddressMap} from './addressmap.js';
import {addressLink, endpointPlace} from './small.js';
import {Table} from './table.js';
import {Twin} from './twin.js';

/** @typedef {{address: string, kind: string, holder: string, href: string}} Row */

export class AddressSection {
  /** @param {import('../app.js').Context} context */
  constructor({world, place}) {
    this.world = world;
    this.map = new AddressMap();
    this.table = new Table({
      caption: 'Addresses that are not free', noun: 'addresses', key: (one) => one.address, state: {sort: 'address'},
      empty: 'Nobody has an address.',
      columns: [
        {id: 'address', title: 'Address', value: (one) => one.address, order: (one) => addressOrder(one.address), cell: (one) => addressLink(one.address)},
        {id: 'kind', title: 'Kind', value: (one) => one.kind},
        {id: 'holder', title: 'Who has it', value: (one) => one.holder, cell: (one) => (one.href ? h('a', {href: one.href}, one.holder) : one.holder)},
      ],
    });
    this.chooser = h('select', {'aria-label': 'Subnet', on: {change: () => this.choose()}});
    this.graphic = h('div', {}, this.chooser, this.map.element);
    this.twin = new Twin('addresses', place.query, this.graphic, this.table.element, 'map');
    this.element = this.twin.element;
    /** @type {any[]} */
    this.reservations = [];
    this.reservedAt = -1;
    this.sign = '';
  }

  /** @param {any} network @param {import('../live/endpoints.js').Endpoints} endpoints */
  update(network, endpoints) {
    if (!endpoints.isLoaded) return;
    this.network = network;
    this.endpoints = endpoints;
    this.readReservations(network);
    const cidrs = network.subnets.map((/** @type {any} */ one) => one.cidr);
    show(this.chooser, cidrs, () => cidrs.map((/** @type {string} */ cidr) => h('option', {value: cidr}, cidr)));
    this.chooser.hidden = cidrs.length < 2;
    const sign = JSON.stringify([endpoints.edition, network.version, this.reservedAt, this.reservations.length, this.chosen()]);
    if (sign === this.sign) return;
    this.sign = sign;
    const rows = rowsOf(network, [...endpoints.items.values()], this.reservations);
    this.table.update(rows.filter((row) => row.kind !== 'reserved'));
    this.draw(rows, sign);
  }

  chosen() {
    return /** @type {HTMLSelectElement} */ (this.chooser).value;
  }

  choose() {
    if (this.network && this.endpoints) this.update(this.network, this.endpoints);
  }

  /** @param {Row[]} rows @param {string} sign */
  draw(rows, sign) {
    const block = parseBlock(this.chosen());
    if (!block) return;
    const holders = new Map();
    for (const row of rows) {
      const address = parseAddress(row.address);
      if (address && contains(block, address)) holders.set(address.value, {kind: row.kind, text: textOf(row), href: row.href});
    }
    this.map.update(block, holders, sign);
  }

  /** Again when one came or went; nothing else changes them. @param {any} network */
  async readReservations(network) {
    const last = this.world.events.findLast((/** @type {any} */ event) => event.network === network.id && event.kind.startsWith('reservation.'));
    const edition = last?.number ?? 0;
    if (edition === this.reservedAt) return;
    this.reservedAt = edition;
    try {
      this.reservations = (await this.world.api.list(`v1/networks/${network.id}/reservations`)).items;
      this.sign = '';
      this.world.changed();
    } catch {
      // The map then lacks them; the stream or the next change brings them.
    }
  }

  close() {
    this.map.close();
  }
}

/** @param {Row} row */
const textOf = (row) => {
  if (row.kind === 'reserved') return 'not usable';
  return row.kind === 'endpoint' ? row.holder : `${row.kind}${row.holder ? ` ${row.holder}` : ''}`;
};

/** @param {any} network @param {any[]} endpoints @param {any[]} reservations @returns {Row[]} */
export function rowsOf(network, endpoints, reservations) {
  const rows = new Map();
  const add = (/** @type {Row} */ row) => rows.has(row.address) || rows.set(row.address, row);
  for (const one of endpoints) {
    for (const address of one.addresses) add({address, kind: 'endpoint', holder: `${one.name || one.id} on ${one.host}`, href: endpointPlace(one)});
  }
  for (const subnet of network.subnets) {
    if (subnet.gateway) add({address: subnet.gateway, kind: 'gateway', holder: '', href: ''});
    for (const [name, address] of Object.entries(subnet.reserved ?? {})) add({address, kind: 'reservation', holder: name, href: ''});
  }
  for (const one of reservations) add({address: one.address, kind: 'reservation', holder: one.name, href: ''});
  for (const subnet of network.subnets) for (const address of unusable(subnet.cidr)) add({address, kind: 'reserved', holder: '', href: ''});
  return [...rows.values()];
}

/** The first and the last address of an IPv4 subnet. @param {string} cidr @returns {string[]} */
function unusable(cidr) {
  const block = parseBlock(cidr);
  if (!block || block.family !== 4 || block.size < 4n) return [];
  return [block.first, block.first + block.size - 1n].map((value) => [24n, 16n, 8n, 0n].map((bits) => (value >> bits) & 255n).join('.'));
}
