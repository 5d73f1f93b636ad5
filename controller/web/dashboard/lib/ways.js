/**
 * The way out of a problem: what a reason means for an operator, and the command that goes on from there. Pure.
 * A reason that is not known here still gets the doctor.
 * @typedef {{text: string, words: string[]}} Way
 */

/** What the doctor of a host looks into. @param {string} text @returns {(host: string) => Way} */
const doctor = (text) => (host) => ({text, words: ['doctor', host]});

/** @type {Record<string, (host: string) => Way>} */
const WAYS = {
  'host-down': (host) => ({
    text: 'Its worker does not answer. Look at the machine and at its worker; what it carries stays reserved.',
    words: ['host', 'inspect', host],
  }),
  starting: (host) => ({
    text: 'Its worker has just begun and has not reported. If that stays so, look at its log.',
    words: ['host', 'inspect', host],
  }),
  'peer-not-adjacent': doctor('The hosts of this routed network are not on one segment: let it tunnel, or move the host.'),
  'forward-blocked': doctor('Another firewall on the host drops what is forwarded. The doctor says which rule.'),
  'foreign-object': doctor('Something that is not kvnet\'s has the place of what is needed. Remove or rename it.'),
  'kernel-lacks': doctor('The kernel lacks a feature or a module. The doctor says which one.'),
  'kernel-refused': doctor('The kernel refused a change. The detail has its word for it.'),
  'underlay-missing': doctor('The address that other hosts reach it by is not on the machine. Bring it back, or start the worker with another.'),
  'uplink-missing': doctor('The interface to the physical network is not there.'),
  'uplink-down': doctor('The interface to the physical network has no link.'),
  'host-name-taken': (host) => ({
    text: 'Two machines say that they are this host. Give one of them another name.',
    words: ['host', 'inspect', host],
  }),
  behind: doctor('It has not applied yet what was asked for. If that stays so, ask the doctor.'),
  'store-went-back': () => ({
    text: 'The store is older than what was seen of it. Bring the right one back, or accept it as it is.',
    words: ['store', 'show'],
  }),
  'another-cluster': () => ({text: 'The host belongs to another cluster than this store.', words: ['store', 'show']}),
  'no-leader': () => ({text: 'No controller does the upkeep. Is the store well?', words: ['status']}),
  stale: () => ({text: 'The controller is cut off from its store and shows what it knew last.', words: ['status']}),
  'audit-broken': () => ({text: 'Somebody wrote into the store past kvnet, or took something away. The chain says where.', words: ['audit', 'verify']}),
  'values-unreadable': () => ({text: 'Something else writes into the store. The check says which values, and what hangs on them.', words: ['check']}),
  'tokens-in-clear': () => ({text: 'Who listens on the wire can read tokens. Let the controllers speak TLS.', words: ['status']}),
  'certificate-expires': () => ({text: 'Renew it, and start the controller again.', words: ['status']}),
  full: (network) => ({text: 'Hardly any address is left. Grow the subnet, or add one.', words: ['ipam', 'show', network]}),
};

/**
 * @param {string} reason
 * @param {string} name of the host or network that it is about; '' if of none
 * @param {string} [noun]
 * @returns {Way}
 */
export function wayOut(reason, name, noun = 'host') {
  const known = WAYS[reason];
  if (known && (name || known.length === 0)) return known(name);
  if (!name) return {text: 'The status says more.', words: ['status']};
  if (noun === 'network') return {text: 'The hosts of the network say more.', words: ['network', 'inspect', name]};
  return {text: 'The doctor looks at that host and says what to do.', words: ['doctor', name]};
}
