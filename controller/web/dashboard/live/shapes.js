/** Objects as events carry them (the store's shape), as the API shows them. Pure. */

/**
 * @param {any} stored an endpoint as in an event's `before` or `after`
 * @param {string} networkName @param {number} version
 */
export function endpointOf(stored, networkName, version) {
  const texts = /** @type {string[]} */ (stored.addresses ?? []).map((one) => one.split('/')[0]);
  return {
    ...stored,
    network_name: networkName,
    addresses: texts,
    address: texts.find((one) => !one.includes(':')) ?? null,
    address6: texts.find((one) => one.includes(':')) ?? null,
    created_at: new Date(stored.created_at * 1000).toISOString(),
    version,
    applied: {converged: false, waiting_for: []},
    isFresh: true, // what is applied where is not known yet
  };
}

/** One change of one object: live or from the journal, it is the same. @param {any} event */
export const keyOf = (event) => `${event.revision} ${event.kind} ${event.key}`;

/** The kind of object that an event is about. @param {string} kind */
export const nounOf = (kind) => kind.split('.', 1)[0];

/** What is wrong with an object, from its status, in one shape. @param {any} object */
export function problemsOf(object) {
  const conditions = object.status?.conditions ?? [];
  const told = conditions.filter((/** @type {any} */ one) => one.type === 'problem' && one.status === 'true');
  const former = (object.conditions ?? []).map((/** @type {any} */ one) => ({...one, reason: one.code}));
  return [...told, ...former];
}

/** @param {any} object @param {string} type @returns {any} */
export const conditionOf = (object, type) =>
  (object.status?.conditions ?? []).find((/** @type {any} */ one) => one.type === type) ?? null;
