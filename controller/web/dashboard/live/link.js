/**
 * A page's end of the stream: through the worker that all pages share, or by itself where a browser has none.
 * @typedef {'connecting' | 'live' | 'away' | 'asleep' | 'locked'} LinkState
 */

import {Stream} from './stream.js';

const BEAT_MS = 30000;
const HUB_MS = 3000;
const ASLEEP_MS = 60000;

export class Link {
  /**
   * @param {string} url of /v1/events
   * @param {(message: any) => void} onMessage
   * @param {(state: LinkState, resumed: boolean) => void} onState
   */
  constructor(url, onMessage, onState) {
    this.url = url;
    this.onMessage = onMessage;
    this.onState = onState;
    /** @type {MessagePort | null} */
    this.port = null;
    /** @type {Stream | null} */
    this.own = null;
    this.asleep = 0;
  }

  open() {
    document.addEventListener('visibilitychange', () => this.looked());
    // A page that is left, perhaps to be kept and shown again by "back".
    window.addEventListener('pagehide', () => this.leave());
    window.addEventListener('pageshow', (event) => event.persisted && this.join());
    setInterval(() => this.beat(), BEAT_MS);
    this.join();
  }

  join() {
    if (typeof SharedWorker === 'undefined') return this.alone();
    try {
      const hub = new SharedWorker(hubUrl(), {type: 'module', name: 'kvnet'});
      const port = hub.port;
      const patience = setTimeout(() => this.alone(), HUB_MS);
      hub.onerror = () => this.alone();
      port.onmessage = (event) => {
        clearTimeout(patience);
        if (this.port === port) this.heard(event.data);
      };
      this.port = port;
      this.beat();
    } catch {
      this.alone();
    }
  }

  /** Without the worker: a stream of this page's own. */
  alone() {
    this.port = null;
    this.own ??= new Stream(this.url, this.onMessage, (state, resumed) => this.onState(state, resumed));
    this.own.start();
  }

  /** @param {any} message */
  heard(message) {
    if (message.type === 'state') this.onState(message.state, message.resumed);
    else if (message.type !== 'here') this.onMessage(message);
  }

  beat() {
    this.port?.postMessage({type: 'here', isAwake: !document.hidden, url: this.url});
  }

  looked() {
    this.beat();
    clearTimeout(this.asleep);
    if (!this.own) return;
    if (!document.hidden) this.own.start();
    else {
      this.asleep = setTimeout(() => {
        this.own?.stop();
        this.onState('asleep', false);
      }, ASLEEP_MS);
    }
  }

  /** @param {boolean} [isOver] who looked does so no more */
  leave(isOver = false) {
    this.port?.postMessage({type: 'bye', isOver});
    this.port = null;
    this.own?.stop();
  }
}

/** The page's policy lets only what this makes be run as a script. */
function hubUrl() {
  const url = new URL('hub.js', import.meta.url).href;
  const types = /** @type {any} */ (window).trustedTypes;
  if (!types) return url;
  policy ??= types.createPolicy('kvnet-hub', {
    createScriptURL: (/** @type {string} */ text) => {
      if (text !== url) throw new TypeError('only the hub');
      return text;
    },
  });
  return policy.createScriptURL(url);
}

/** @type {any} */
let policy = null;
