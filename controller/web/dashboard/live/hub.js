/**
 * The worker that all pages of a browser share: one stream, told to each of them. A browser opens six connections to a
 * host and no more, over all its tabs; with a stream each, the seventh tab would hang. Closes the stream when no page
 * has been looked at for a while. Keeps no objects, only the stream's position.
 */

import {Stream} from './stream.js';

const ASLEEP_MS = 60000;
const LOST_MS = 150000; // a page says twice a minute that it is there

/** @type {Map<MessagePort, {isAwake: boolean, seen: number}>} */
const pages = new Map();
/** @type {Stream | null} */
let stream = null;
let idle = 0;

/** @param {any} message */
function tell(message) {
  for (const page of pages.keys()) page.postMessage(message);
}

/** @param {string} url */
function wake(url) {
  clearTimeout(idle);
  idle = 0;
  stream ??= new Stream(url, tell, (state, resumed) => tell({type: 'state', state, resumed}));
  stream.start();
}

function rest() {
  const now = Date.now();
  for (const [port, page] of pages) {
    if (now - page.seen > LOST_MS) pages.delete(port);
  }
  const isLookedAt = [...pages.values()].some((page) => page.isAwake);
  if (isLookedAt || idle) return;
  idle = setTimeout(() => {
    idle = 0;
    stream?.stop();
    tell({type: 'state', state: 'asleep', resumed: false});
  }, pages.size ? ASLEEP_MS : 1000);
}

/** @param {MessagePort} port @param {any} message */
function heard(port, message) {
  if (message.type === 'bye') {
    pages.delete(port);
    if (message.isOver) stream?.lock(); // another may look next: nothing is told on behalf of the one who left
  } else {
    const isNew = !pages.has(port);
    pages.set(port, {isAwake: message.isAwake, seen: Date.now()});
    const wasRunning = stream?.isRunning ?? false;
    if (message.isAwake) wake(message.url);
    if (isNew) port.postMessage({type: 'here'});
    if (isNew && wasRunning && stream) port.postMessage({type: 'state', state: stream.state, resumed: false});
  }
  rest();
}

self.addEventListener('connect', (event) => {
  const port = /** @type {MessageEvent} */ (event).ports[0];
  port.onmessage = (message) => heard(port, message.data);
});
setInterval(rest, 30000);
