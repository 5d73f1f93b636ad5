/** The recent changes of one thing: those of the journal, read once, and those that the stream tells since. */

import {keyOf} from '../parts/changes.js';

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
    this.isLoaded = false;
    this.seen = -1;
    /** @type {any[]} */
    this.known = [];
  }

  async load() {
    try {
      this.past = (await this.world.api.get('v1/journal', {...this.subject, limit: '100'})).items;
      this.isLoaded = true;
    } catch {
      // What the stream tells is shown all the same.
    }
    this.seen = -1;
    this.world.changed();
  }

  /** Newest first. */
  changes() {
    if (this.seen === this.world.eventCount) return this.known;
    this.seen = this.world.eventCount;
    const found = new Map(this.past.map((event) => [keyOf(event), event]));
    for (const event of this.world.events) if (this.concerns(event)) found.set(keyOf(event), event);
    this.known = [...found.values()].sort((a, b) => b.revision - a.revision);
    return this.known;
  }
}
