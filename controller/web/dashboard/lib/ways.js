/**
 * The way out of a problem: what a reason means for an operator, and the command that goes on from there. Pure.
 * A reason that is not known here still gets the doctor.
 * @typedef {{text: string, words: string[]}} Way
 */

/** @type {Record<string, (host: string) => Way>} */
const WAYS = {
  'host-down': (host) => ({
    text: 'Its worker does not answer. Look at the machine and at its worker; what it carries stays reserved.',
    words: ['host', 'inspect', host],
  }),
  'host-away': (host) => WAYS['host-down'](host),
  'peer-not-adjacent': (host) => ({
    text: 'The hosts of this routed network are not on one segment: let it tunnel, or move the host.',
    words: ['doctor', host],
  }),
  'forward-blocked': (host) => ({
    text: 'Another firewall on the host drops what is forwarded. The doctor says which rule.',
    words: ['doctor', host],
  }),
  'host-name-taken': (host) => ({
    text: 'Two machines say that they are this host. Give one of them another name.',
    words: ['host', 'inspect', host],
  }),
  'store-went-back': () => ({
    text: 'The store is older than what was seen of it. Bring the right one back, or accept it as it is.',
    words: ['store', 'show'],
  }),
  behind: (host) => ({
    text: 'It has not applied yet what was asked for. If that stays so, ask the doctor.',
    words: ['doctor', host],
  }),
  'no-leader': () => ({text: 'No controller does the upkeep. Is the store well?', words: ['status']}),
  stale: () => ({text: 'The controller is cut off from its store and shows what it knew last.', words: ['status']}),
  full: () => ({text: 'Hardly any address is left. Grow the subnet, or add one.', words: ['ipam', 'show']}),
};

/** @param {string} reason @param {string} host @returns {Way} */
export function wayOut(reason, host) {
  const known = WAYS[reason];
  if (known && (host || known.length === 0)) return known(host);
  return host
    ? {text: 'The doctor looks at that host and says what to do.', words: ['doctor', host]}
    : {text: 'The status says more.', words: ['status']};
}
