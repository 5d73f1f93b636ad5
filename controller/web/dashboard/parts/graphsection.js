/** A network's graph and its table twin, kept in step with the network and its endpoints. */

import {h, show} from '../lib/dom.js';
import {plural} from '../lib/format.js';
import {Graph} from './graph.js';
import {graphOf} from './graphshape.js';
import {chip, hostState} from './small.js';
import {Table} from './table.js';
import {Twin} from './twin.js';

export class GraphSection {
  /** @param {import('../app.js').Context} context */
  constructor({world, place}) {
    this.world = world;
    this.graph = new Graph();
    this.table = new Table({
      caption: 'Nodes of the graph', noun: 'nodes', key: (one) => one.id, empty: 'There is nothing to show.',
      columns: [
        {id: 'label', title: 'Node', value: (one) => one.label.replace('\n', ' '), cell: (one) => (one.href ? h('a', {href: one.href}, one.label.replace('\n', ' ')) : one.label)},
        {id: 'kind', title: 'Kind', value: (one) => (one.kind === 'group' ? 'host' : one.kind)},
        {id: 'parent', title: 'Host', value: (one) => (one.parent ?? '').replace(/^host:/, '')},
        {id: 'state', title: 'State', value: (one) => one.state, cell: (one) => chip(one.state, {good: 'well', warn: 'waiting', bad: 'bad', none: 'not known'}[/** @type {'good'} */ (one.state)])},
      ],
    });
    this.note = h('p', {class: 'muted'});
    this.twin = new Twin('graph', place.query, h('div', {}, this.graph.element, this.note), this.table.element, 'graph');
    this.element = this.twin.element;
    this.sign = '';
    this.isAsked = false;
  }

  /** @param {any} network @param {import('../live/endpoints.js').Endpoints} endpoints */
  update(network, endpoints) {
    if (!endpoints.isLoaded) return;
    if (!this.isAsked) {
      this.isAsked = true;
      requestAnimationFrame(() => this.graph.load()); // after the page was painted
    }
    const hosts = network.hosts.map((/** @type {string} */ name) => hostState(this.world.hosts.get(name) ?? {alive: false}));
    const sign = JSON.stringify([endpoints.edition, network.name, network.hosts, network.peers, hosts]);
    if (sign === this.sign) return;
    this.sign = sign;
    const graph = graphOf(network, this.world.hosts, [...endpoints.items.values()]);
    this.graph.update(graph);
    this.table.update(graph.nodes);
    show(this.note, [graph.isGrouped, graph.nodes.length], () =>
      graph.isGrouped ? `${plural(endpoints.items.size, 'endpoint')} are grouped by host; open a host to see its own.` : null);
  }

  close() {
    this.graph.close();
  }
}

