/** What is around every view: the state of the stream, the banner when it is gone, the footer, the place in the menu. */

import {h, show} from '../lib/dom.js';
import {span} from '../lib/format.js';

const PATIENCE_MS = 700; // a reconnect that is quicker needs no alarm

const WORDS = {
  connecting: 'connecting',
  live: 'live',
  away: 'away',
  asleep: 'paused',
  locked: 'logged out',
};

export class Frame {
  constructor() {
    this.banner = element('banner');
    this.link = element('link');
    this.facts = element('facts');
    this.nav = element('nav');
  }

  /** @param {string[]} path */
  mark(path) {
    const here = `#/${path[0] ?? ''}`;
    for (const one of this.nav.querySelectorAll('a')) {
      if (one.getAttribute('href') === here) one.setAttribute('aria-current', 'page');
      else one.removeAttribute('aria-current');
    }
  }

  /** @param {import('../live/world.js').World} world */
  update(world) {
    const isStale = world.isStale && world.isLoaded && world.link !== 'live';
    document.body.classList.toggle('stale', isStale);
    this.link.className = `link ${world.link}`;
    show(this.link, [world.link], () => WORDS[world.link]);
    this.warn(world);
    const status = world.status;
    show(this.facts, [status?.version, status?.store, status?.cluster, world.revision], () =>
      status ? `kvnet ${status.version} - ${status.store} - cluster ${status.cluster} - revision ${world.revision}` : '',
    );
  }

  /** @param {import('../live/world.js').World} world */
  warn(world) {
    const text = this.trouble(world);
    this.banner.hidden = text === '';
    show(this.banner, [text], () => (text ? h('p', {}, text) : null));
  }

  /** @param {import('../live/world.js').World} world */
  trouble(world) {
    const since = (Date.now() - world.linkSince) / 1000;
    const isGone = world.link === 'away' || (world.link === 'connecting' && !world.isLoaded);
    if (isGone && since * 1000 >= PATIENCE_MS) {
      const shown = world.isLoaded ? 'What is shown is from before. ' : '';
      // By five seconds, so that a screen reader is not told every second.
      const rough = since < 5 ? '' : ` for ${span(since - (since % 5))}`;
      return `The controller does not answer${rough}. ${shown}The page tries again by itself.`;
    }
    if (world.link === 'asleep') return 'Paused while nobody looked. Going on.';
    if (world.error) return `The lists could not be read: ${world.error.message}. The page tries again by itself.`;
    if (world.status?.trouble) return `Nothing is changed: ${world.status.trouble.detail}. ${world.status.trouble.fix}`;
    if (world.status?.stale_since) return 'The controller is cut off from its store and shows what it knew last.';
    return '';
  }
}

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
