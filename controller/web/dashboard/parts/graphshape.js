/**
 * What a network's graph shows, and where: hosts as boxes with their endpoints, the network above, its peers beside it.
 * Pure. Places do not depend on chance or time: an endpoint keeps its slot while it lives, so nothing jumps when another
 * comes or goes.
 * @typedef {{id: string, label: string, kind: string, state: string, href: string, parent?: string, x?: number, y?: number}} GraphNode
 * @typedef {{id: string, source: string, target: string, state: string}} GraphEdge
 */

import {to} from '../lib/dom.js';
import {plural} from '../lib/format.js';
import {endpointPlace, endpointState, hostState} from './small.js';

export const MOST_NODES = 300;
const CELL = {width: 112, height: 62};
const GAP = 46;
const NARROWEST = 620; // a few small hosts stand in one row

/** @param {any} network @param {Map<string, any>} hosts @param {any[]} endpoints */
export function graphOf(network, hosts, endpoints) {
  const byHost = new Map(network.hosts.map((/** @type {string} */ name) => [name, /** @type {any[]} */ ([])]));
  for (const one of endpoints) {
    if (!byHost.has(one.host)) byHost.set(one.host, []);
    byHost.get(one.host).push(one);
  }
  const isGrouped = byHost.size + endpoints.length > MOST_NODES;
  const centre = `network:${network.id}`;
  /** @type {GraphNode[]} */
  const nodes = [{id: centre, label: network.name, kind: 'network', state: 'good', href: ''}];
  /** @type {GraphEdge[]} */
  const edges = [];
  for (const [name, own] of [...byHost].sort(([a], [b]) => a.localeCompare(b, 'en', {numeric: true}))) {
    const host = hosts.get(name);
    const [state, word] = host ? hostState(host) : ['none', 'unknown'];
    const id = `host:${name}`;
    const label = `${name} (${word})${isGrouped ? `\n${plural(own.length, 'endpoint')}` : ''}`;
    nodes.push({id, label, kind: isGrouped || !own.length ? 'group' : 'host', state, href: to('hosts', name)});
    edges.push({id: `edge:${name}`, source: centre, target: id, state});
    if (isGrouped) continue;
    for (const one of own) {
      const label = `${one.name || one.id}\n${one.address ?? one.address6 ?? ''}`;
      nodes.push({id: `endpoint:${one.id}`, label, kind: 'endpoint', state: endpointState(one)[0], href: endpointPlace(one), parent: id});
    }
  }
  for (const peer of network.peers) {
    nodes.push({id: `peer:${peer.id}`, label: peer.name, kind: 'peer', state: 'none', href: to('networks', peer.name)});
    edges.push({id: `peering:${peer.id}`, source: centre, target: `peer:${peer.id}`, state: 'none'});
  }
  return {nodes, edges, isGrouped};
}

/** Gives every node its place; `slots` remembers which slot an endpoint has in its host's box. */
export class Places {
  constructor() {
    /** @type {Map<string, Map<string, number>>} */
    this.slots = new Map();
  }

  /** @param {GraphNode[]} nodes @returns {Map<string, {x: number, y: number}>} */
  of(nodes) {
    const boxes = nodes.filter((node) => node.kind === 'host' || node.kind === 'group').map((host) => this.box(host, nodes));
    const area = boxes.reduce((sum, box) => sum + (box.width + GAP) * (box.height + GAP), 0);
    const limit = Math.max(NARROWEST, Math.sqrt(area * 3.2), ...boxes.map((box) => box.width));
    const places = new Map();
    let [x, y, tallest, widest] = [0, 140, 0, 0];
    for (const box of boxes) {
      if (x > 0 && x + box.width > limit) [x, y, tallest] = [0, y + tallest + GAP, 0];
      this.fill(box, x, y, places);
      widest = Math.max(widest, x + box.width);
      x += box.width + GAP;
      tallest = Math.max(tallest, box.height);
    }
    for (const node of nodes) if (node.kind === 'network') places.set(node.id, {x: widest / 2, y: 0});
    nodes.filter((node) => node.kind === 'peer').forEach((node, i) =>
      places.set(node.id, {x: widest / 2 + (i % 2 ? -1 : 1) * (200 + 150 * Math.floor(i / 2)), y: -30}));
    return places;
  }

  /** @param {GraphNode} host @param {GraphNode[]} nodes */
  box(host, nodes) {
    const own = nodes.filter((node) => node.parent === host.id).map((node) => node.id);
    const slots = this.slots.get(host.id) ?? new Map();
    for (const id of [...slots.keys()]) if (!own.includes(id)) slots.delete(id);
    const taken = new Set(slots.values());
    let next = 0;
    for (const id of own) {
      if (slots.has(id)) continue;
      while (taken.has(next)) next++;
      slots.set(id, next);
      taken.add(next);
    }
    this.slots.set(host.id, slots);
    const count = Math.max(1, ...[...slots.values()].map((slot) => slot + 1));
    const columns = Math.ceil(Math.sqrt(count));
    return {host, slots, columns, width: columns * CELL.width, height: Math.ceil(count / columns) * CELL.height};
  }

  /** @param {any} box @param {number} x @param {number} y @param {Map<string, {x: number, y: number}>} places */
  fill(box, x, y, places) {
    places.set(box.host.id, {x: x + box.width / 2, y: y + box.height / 2});
    for (const [id, slot] of box.slots) {
      const [column, row] = [slot % box.columns, Math.floor(slot / box.columns)];
      places.set(id, {x: x + (column + 0.5) * CELL.width, y: y + (row + 0.5) * CELL.height});
    }
  }
}
