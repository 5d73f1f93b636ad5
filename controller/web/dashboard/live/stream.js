/**
 * The one stream of a browser: an EventSource that comes back by itself, with jitter, at the position it had reached.
 * Runs in a page or in the worker that all pages share; knows nothing of either. Never loops without a pause.
 * @typedef {{type: 'change', data: any} | {type: 'bookmark', data: any}} Message
 * @typedef {'connecting' | 'live' | 'away' | 'locked'} State
 */

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 5000;
// A bookmark comes at least every 15 s; a connection that is silent for three of them is dead and does not know it.
const SILENCE_MS = 45000;
const LOST = 410;
const UNKNOWN = 401;

export class Stream {
  /**
   * @param {string} url of /v1/events
   * @param {(message: Message) => void} onMessage
   * @param {(state: State, resumed: boolean) => void} onState resumed: nothing that has a position was missed
   */
  constructor(url, onMessage, onState) {
    this.url = url;
    this.onMessage = onMessage;
    this.onState = onState;
    /** @type {number | null} */
    this.position = null;
    /** @type {State} */
    this.state = 'connecting';
    /** @type {EventSource | null} */
    this.source = null;
    this.failures = 0;
    this.timer = 0;
    this.isRunning = false;
  }

  start() {
    if (this.isRunning) return;
    this.isRunning = true;
    this.open();
  }

  stop() {
    this.isRunning = false;
    this.close();
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  open() {
    this.close();
    const resumed = this.position !== null;
    const source = new EventSource(resumed ? `${this.url}?since=${this.position}` : this.url);
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.watch();
      this.tell('live', resumed);
    };
    source.addEventListener('change', (event) => this.take('change', event));
    source.addEventListener('bookmark', (event) => this.take('bookmark', event));
    source.addEventListener('gone', (event) => this.lost(JSON.parse(event.data).revision));
    // EventSource would try again by itself after a fixed time, all pages of all browsers at once.
    source.onerror = () => this.failed();
    this.watch();
  }

  /** @param {'change' | 'bookmark'} type @param {MessageEvent} event */
  take(type, event) {
    this.watch();
    if (event.lastEventId) this.position = Math.max(this.position ?? 0, Number(event.lastEventId));
    this.onMessage({type, data: JSON.parse(event.data)});
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.failed(), SILENCE_MS);
  }

  /** @param {number | undefined} revision where to go on; none: what was between is not known any more */
  lost(revision) {
    this.position = revision ?? null;
    this.failed();
  }

  async failed() {
    this.close();
    if (!this.isRunning) return;
    this.tell('away', false);
    const limit = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.failures++);
    this.timer = setTimeout(() => this.again(), limit / 2 + (Math.random() * limit) / 2);
  }

  /**
   * An EventSource does not tell why it was refused; a HEAD does: a position that is no longer kept is given up, and
   * so is everything when nobody is logged in any more.
   */
  async again() {
    try {
      const place = this.position === null ? this.url : `${this.url}?since=${this.position}`;
      const answer = await fetch(place, {method: 'HEAD', signal: AbortSignal.timeout(3000)});
      if (answer.status === LOST) this.position = null;
      if (answer.status === UNKNOWN) return this.lock();
    } catch {
      // Nobody answers: the EventSource finds that out, too.
    }
    if (this.isRunning) this.open();
  }

  lock() {
    this.stop();
    this.position = null;
    this.tell('locked', false);
  }

  /** @param {State} state @param {boolean} resumed */
  tell(state, resumed) {
    this.state = state;
    this.onState(state, resumed);
  }
}
