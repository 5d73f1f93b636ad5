/** The recent changes of one thing: those of the journal, read once, and those that the stream tells since. */

import {keyOf} from './shapes.js';

const RECENT = 1000;

export class History {
  /**
   * @param {any} world
   * @param {Record<string, string>} subject as /v1/journal takes it; empty: of everything
   * @param {(event: any) => boolean} concerns the same for events of the stream
   */
  constructor(world, subject, concerns) {
    this.world = world;
    this.subject = subject;
    this.concerns = concerns;
    /** @type {any[]} */
    this.past = [];
    this.gaps = -1;
    this.seen = '';
    /** @type {any[]} */
    this.known = [];
  }

  async load() {
    try {
      this.past = (await this.world.api.get('v1/journal', {...this.subject, limit: '100'})).items;
    } catch {
      // What the stream tells is shown all the same.
    }
    this.seen = '';
    this.world.changed();
  }

  /** Newest first. */
  changes() {
    const seen = `${this.world.eventCount} ${this.past.length} ${this.past[0]?.revision}`;
    if (this.gaps !== this.world.gaps && this.world.link === 'live') {
      this.gaps = this.world.gaps;
      this.load();
    }
    if (this.seen === seen) return this.known;
    this.seen = seen;
    const found = new Map(this.past.map((event) => [keyOf(event), event]));
    for (const event of this.world.events.slice(-RECENT)) if (this.concerns(event)) found.set(keyOf(event), event);
    this.known = [...found.values()].sort((a, b) => b.revision - a.revision);
    return this.known;
  }
}
