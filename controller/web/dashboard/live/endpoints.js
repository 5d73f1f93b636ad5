/**
 * The endpoints of one network or host while a view shows them: listed once, then kept by events.
 * What is applied where is observed and not in the events; `settle` asks for it, seldom.
 */

import {conditionOf, endpointOf} from './shapes.js';

const SETTLE_MS = 300;
const TRIES = 8;

export class Endpoints {
  /** @param {any} world @param {{network?: string, host?: string}} filter */
  constructor(world, filter) {
    this.world = world;
    this.filter = filter;
    /** @type {Map<string, any>} by network and id */
    this.items = new Map();
    this.isLoaded = false;
    /** @type {any} */
    this.error = null;
    this.revision = 0;
    this.edition = 0; // counts changes, so that a view sees that there was one
    this.timer = 0;
    this.turn = 0;
    this.tries = 0;
  }

  close() {
    clearTimeout(this.timer);
    this.turn = -1;
    this.world.collections.delete(this);
  }

  async load() {
    const turn = ++this.turn;
    try {
      const list = await this.world.api.list('v1/endpoints', this.filter);
      if (turn !== this.turn) return;
      this.items = new Map(list.items.map((/** @type {any} */ one) => [`${one.network}/${one.id}`, one]));
      this.revision = list.revision;
      this.isLoaded = true;
      this.error = null;
      for (const event of this.world.events) this.take(event);
      for (const network of new Set(list.items.map((/** @type {any} */ one) => one.network))) this.settle(network);
    } catch (error) {
      if (turn !== this.turn) return;
      this.error = error;
    }
    this.edition++;
    this.world.changed();
  }

  /** @param {any} event */
  take(event) {
    if (!event.kind.startsWith('endpoint.') || event.revision <= this.revision || !this.isLoaded) return;
    const stored = event.after ?? event.before;
    if (!stored?.id || !this.concerns(event, stored)) return;
    const key = `${event.network}/${stored.id}`;
    const known = this.items.get(key);
    if (known && known.version > event.revision) return;
    if (event.after === null) this.items.delete(key);
    else {
      const name = this.world.networks.get(event.network)?.name ?? known?.network_name ?? event.network;
      this.items.set(key, endpointOf(stored, name, event.revision));
      this.tries = 0;
      this.settle(event.network);
    }
    this.edition++;
  }

  /** @param {any} event @param {any} stored */
  concerns(event, stored) {
    if (this.filter.host) return stored.host === this.filter.host;
    const network = this.world.networkNamed(this.filter.network);
    return event.network === (network?.id ?? this.filter.network);
  }

  /** The network's status changed, so what is applied may have. @param {string} network */
  news(network) {
    this.tries = 0;
    this.settle(network);
  }

  /** What is observed and not told by any event is looked at again, now and then. */
  look() {
    for (const network of new Set([...this.items.values()].filter(isUnsettled).map((one) => one.network))) this.news(network);
  }

  /** Asks again what is applied, if something here waits for it. @param {string} network */
  settle(network) {
    if (this.timer || this.turn < 0) return;
    const isWaiting = [...this.items.values()].some((one) => one.network === network && isUnsettled(one));
    if (!isWaiting) return;
    if (this.tries >= TRIES) return;
    // The more there is to read, and the longer it takes to settle, the longer the pause.
    const pause = (SETTLE_MS + this.items.size) * 1.5 ** this.tries++;
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.load();
    }, pause);
  }
}

/** Its state is still to become another one. @param {any} endpoint */
const isUnsettled = (endpoint) => !endpoint.applied.converged || conditionOf(endpoint, 'ready')?.status !== 'true';
