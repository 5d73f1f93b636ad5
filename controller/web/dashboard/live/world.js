/**
 * What the page knows: lists, read once, and kept true by the stream. Views read it and are told when it changed, at
 * most once a frame. Never shows what it cannot vouch for as if it were new: `isStale` says so.
 *
 * Objects that events carry whole (endpoints) are taken from the event; others are asked for again, together and not
 * too often, because what is observed beside them (use, hosts, status) is not in the event.
 */

import {Refresher} from './refresher.js';
import {Endpoints} from './endpoints.js';
import {nounOf} from './shapes.js';
import {wellFormed} from '../lib/text.js';

const KEPT_EVENTS = 5000; // enough for what comes while the lists are read
const STATUS_MS = 15000;
const LEADERLESS_MS = 3000;
const LIVE_KINDS = new Set(['network.status', 'host.status', 'endpoint.status']);

export class World {
  /** @param {import('./api.js').Api} api @param {() => void} onChange */
  constructor(api, onChange) {
    this.api = api;
    this.onChange = onChange;
    /** @type {Map<string, any>} */
    this.networks = new Map();
    /** @type {Map<string, any>} */
    this.hosts = new Map();
    /** @type {any[]} */
    this.pools = [];
    /** @type {any} */
    this.status = null;
    /** @type {any[]} oldest first */
    this.events = [];
    this.eventCount = 0;
    this.gaps = 0; // how often events may have been missed
    this.leaderless = 0; // how often in a row nobody did the upkeep
    this.revision = 0;
    /** @type {import('./link.js').LinkState} */
    this.link = 'connecting';
    this.linkSince = Date.now();
    this.isLoaded = false;
    this.isStale = true;
    /** @type {import('./api.js').ApiError | null} */
    this.error = null;
    /** @type {Set<Endpoints>} */
    this.collections = new Set();
    this.refresher = new Refresher(api, this);
    this.hasLiveStatus = false;
    setInterval(() => !document.hidden && this.link === 'live' && this.look(), STATUS_MS);
  }

  changed() {
    this.onChange();
  }

  /** @param {import('./link.js').LinkState} state @param {boolean} resumed no event that has a position was missed */
  onLink(state, resumed) {
    if (state !== this.link) this.linkSince = Date.now();
    this.link = state;
    if (state === 'live') {
      if (!resumed) this.gaps++;
      this.load();
    } else this.isStale = true;
    this.changed();
  }

  /** Everything that views share, again. What is told meanwhile is applied once more on top of it. */
  async load() {
    this.loading = (this.loading ?? 0) + 1;
    const turn = this.loading;
    try {
      const [networks, hosts, pools] = await Promise.all([
        this.api.list('v1/networks'),
        this.api.list('v1/hosts'),
        this.api.list('v1/pools'),
        this.readStatus(),
        ...[...this.collections].map((one) => one.load()),
      ]);
      if (turn !== this.loading) return;
      this.networks = new Map(networks.items.map((one) => [one.id, one]));
      this.hosts = new Map(hosts.items.map((one) => [one.name, one]));
      this.pools = pools.items;
      this.isLoaded = true;
      this.isStale = this.link !== 'live';
      this.error = null;
      const since = Math.min(networks.revision, hosts.revision);
      for (const event of this.events) if (event.revision > since) this.mark(event);
    } catch (error) {
      if (turn !== this.loading) return;
      this.error = /** @type {any} */ (error);
      setTimeout(() => turn === this.loading && this.link === 'live' && this.load(), 1000 + Math.random() * 2000);
    }
    this.changed();
  }

  /** What no event tells: who does the upkeep, and, of a controller that does not tell it live, how things are. */
  look() {
    if (!this.hasLiveStatus) {
      this.load();
      return;
    }
    this.readStatus();
    for (const collection of this.collections) collection.look();
  }

  async readStatus() {
    try {
      this.status = await this.api.get('v1/status');
      this.revision = Math.max(this.revision, this.status.revision);
      this.leaderless = this.status.leader === null ? this.leaderless + 1 : 0;
      if (this.leaderless) setTimeout(() => this.link === 'live' && this.readStatus(), LEADERLESS_MS);
    } catch (error) {
      if (!this.isLoaded) throw error;
    }
    this.changed();
  }

  /** @param {import('./stream.js').Message} message */
  onMessage(message) {
    this.revision = Math.max(this.revision, message.data.revision ?? 0);
    if (message.type === 'change') this.take(message.data);
    this.changed();
  }

  /** @param {any} event */
  take(event) {
    if (LIVE_KINDS.has(event.kind)) {
      this.observe(event);
      return;
    }
    event.number = ++this.eventCount;
    this.events.push(event);
    if (this.events.length > KEPT_EVENTS) this.events.splice(0, this.events.length - KEPT_EVENTS);
    for (const collection of this.collections) collection.take(event);
    this.mark(event);
  }

  /** What has to be asked for again after an event. @param {any} event */
  mark(event) {
    const noun = nounOf(event.kind);
    if (event.kind === 'network.deleted') this.networks.delete(event.network);
    else if (event.kind === 'host.deleted') this.hosts.delete(event.key.split('/')[1]);
    else if (noun === 'host') this.refresher.host(event.key.split('/')[1]);
    else if (noun === 'pool') this.refresher.pools();
    else if (noun === 'store' || noun === 'cluster') this.readStatus();
    else if (event.network) this.refresher.network(event.network, noun !== 'network' && this.hasLiveStatus);
    const host = event.after?.host ?? event.before?.host;
    if (noun === 'endpoint' && host) this.refresher.host(host, this.hasLiveStatus);
    if (event.after?.peers || event.before?.peers) for (const peer of peersOf(event)) this.refresher.network(peer);
  }

  /** What is observed beside an object, told live. @param {any} event */
  observe(event) {
    this.hasLiveStatus = true;
    const noun = nounOf(event.kind);
    const known = noun === 'network' ? this.networks.get(event.network) : this.hosts.get(event.key.split('/')[1]);
    if (!known) {
      if (noun === 'network') this.refresher.network(event.network);
      else this.refresher.host(event.key.split('/')[1]);
      return;
    }
    const after = wellFormed(event.after);
    const {status, ...counts} = after.status ? after : {status: after};
    for (const name of Object.keys(counts)) if (!(name in known)) delete counts[name];
    const merged = {...known, ...counts, status};
    if (noun === 'network') {
      this.networks.set(known.id, merged);
      for (const collection of this.collections) collection.news(event.network);
    } else this.hosts.set(known.name, merged);
  }

  /**
   * Endpoints of a network or of a host, for as long as a view shows them.
   * @param {{network?: string, host?: string}} filter
   */
  endpoints(filter) {
    const found = new Endpoints(this, filter);
    this.collections.add(found);
    found.load().catch(() => {});
    return found;
  }

  /** @param {string} name a name or an id @returns {any} */
  networkNamed(name) {
    return this.networks.get(name) ?? [...this.networks.values()].find((one) => one.name === name) ?? null;
  }
}

/** @param {any} event @returns {string[]} networks that became or ceased to be peers */
function peersOf(event) {
  const before = new Set(event.before?.peers ?? []);
  const after = new Set(event.after?.peers ?? []);
  return [...before, ...after].filter((one) => before.has(one) !== after.has(one)).map(String);
}
