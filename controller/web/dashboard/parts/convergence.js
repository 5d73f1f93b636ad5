/** How far each host of a network is: the version wanted, the version applied, the lag. Asked for when it may have changed. */

import {ago, span} from '../lib/format.js';
import {chip, hostLink} from './small.js';
import {Table} from './table.js';

const PAUSE_MS = 1000;

export class ConvergenceTable {
  /** @param {any} world */
  constructor(world) {
    this.world = world;
    this.table = new Table({
      caption: 'Hosts of the network', noun: 'hosts', key: (one) => one.host, hasFilter: false, state: {sort: 'host'},
      empty: 'No host has anything of this network.',
      columns: [
        {id: 'host', title: 'Host', value: (one) => one.host, cell: (one) => hostLink(one.host)},
        {id: 'state', title: 'State', value: (one) => stateOf(one)[1], cell: (one) => chip(...stateOf(one))},
        {id: 'wanted', title: 'Wanted', value: (one) => one.wanted, isNumber: true},
        {id: 'applied', title: 'Applied', value: (one) => one.applied, isNumber: true},
        {id: 'lag', title: 'Behind', value: (one) => one.lag_revisions, cell: (one) => lagText(one), isNumber: true},
        {id: 'problems', title: 'Problems', value: (one) => one.problems.map((/** @type {any} */ p) => `${p.code}: ${p.detail}`), cell: (one) => one.problems.flatMap((/** @type {any} */ p) => [`${p.code}: ${p.detail} `, ago(p.since)])},
      ],
    });
    this.element = this.table.element;
    this.sign = '';
    this.timer = 0;
    this.last = -PAUSE_MS;
    this.isClosed = false;
  }

  /** @param {any} network */
  update(network) {
    const hosts = network.hosts.map((/** @type {string} */ name) => [this.world.hosts.get(name)?.alive, this.world.hosts.get(name)?.lag_revisions]);
    const sign = JSON.stringify([network.version, network.endpoints, network.hosts, network.status, hosts]);
    if (sign === this.sign || this.timer) return;
    this.sign = sign;
    const wait = Math.max(0, this.last + PAUSE_MS - performance.now());
    this.timer = setTimeout(() => this.read(network.id), wait);
  }

  /** @param {string} id */
  async read(id) {
    this.last = performance.now();
    try {
      const found = await this.world.api.get(`v1/networks/${id}/convergence`);
      if (this.isClosed) return;
      this.table.update(found.hosts);
      if (!found.converged) this.sign = ''; // look again, after the pause
    } catch {
      // The banner tells when the controller is away; a network that is gone has another page.
    }
    this.timer = 0;
    if (this.sign === '' && !this.isClosed) this.timer = setTimeout(() => ((this.timer = 0), this.world.changed()), PAUSE_MS);
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
  }
}

/** @param {any} one @returns {['good' | 'warn' | 'bad', string]} */
function stateOf(one) {
  if (!one.alive) return ['bad', 'down'];
  if (one.problems.length) return ['bad', 'problems'];
  return one.lag_revisions ? ['warn', 'behind'] : ['good', 'applied'];
}

/** @param {any} one */
function lagText(one) {
  if (!one.lag_revisions) return '0';
  return `${one.lag_revisions}${one.lag_seconds ? ` (${span(one.lag_seconds)})` : ''}`;
}
