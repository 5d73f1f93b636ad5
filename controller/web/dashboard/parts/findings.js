/**
 * What is wrong, worst first: gathered from the status, the hosts and the networks. Pure.
 * @typedef {{
 *   key: string, level: 'bad' | 'warn', noun: string, name: string, href: string,
 *   reason: string, detail: string, since: string | null, host: string,
 * }} Finding `host`: where the way out begins, '' if nowhere
 */

import {conditionOf, problemsOf} from '../live/shapes.js';
import {to} from '../lib/dom.js';
import {percentage, seconds, share} from '../lib/format.js';
import {now} from '../lib/time.js';

const FULL = 95;
// Every change is applied a moment later than it is made: that is no problem, unless it lasts.
const LASTING_S = 5;
// Warnings of the controller that tell of somebody who wrote into the store past it.
const GRAVE = new Set(['audit-broken', 'values-unreadable']);

/** @param {any} world @returns {Finding[]} */
export function findings(world) {
  const found = [...ofCluster(world.status ?? {}, world.leaderless), ...[...world.hosts.values()].flatMap(ofHost)];
  const told = new Set(found.map((one) => one.reason));
  found.push(...[...world.networks.values()].flatMap((network) => ofNetwork(network, told)));
  const rank = (/** @type {Finding} */ one) => (one.level === 'bad' ? 0 : 1);
  return found.sort((a, b) => rank(a) - rank(b) || (a.since ?? '').localeCompare(b.since ?? ''));
}

/** @param {any} status @param {number} leaderless @returns {Finding[]} */
function ofCluster(status, leaderless) {
  const about = {noun: 'cluster', name: status.cluster ?? '', href: '#/', host: ''};
  const found = /** @type {Finding[]} */ ([]);
  if (status.trouble) {
    const {kind, detail} = status.trouble;
    found.push({...about, key: 'trouble', level: 'bad', reason: 'store-went-back', detail: `${kind}: ${detail}`, since: null});
  }
  if (status.stale_since) {
    found.push({...about, key: 'stale', level: 'bad', reason: 'stale', detail: 'cut off from the store', since: status.stale_since});
  }
  // Between two controllers nobody is, for a moment.
  if (leaderless > 3) {
    found.push({...about, key: 'leader', level: 'warn', reason: 'no-leader', detail: 'nobody does the upkeep', since: null});
  }
  const warnings = (status.warnings ?? []).map((/** @type {{code: string, detail: string}} */ {code, detail}) => ({
    ...about, key: code, level: /** @type {'bad' | 'warn'} */ (GRAVE.has(code) ? 'bad' : 'warn'), reason: code, detail, since: null,
  }));
  return [...found, ...warnings];
}

/** @param {any} host @returns {Finding[]} */
function ofHost(host) {
  const about = {noun: 'host', name: host.name, href: to('hosts', host.name), host: host.name};
  const ready = conditionOf(host, 'ready');
  if (!host.alive) {
    const detail = ready?.detail || (host.last_seen ? 'its worker gives no sign of life' : 'its worker was never seen alive');
    return [{...about, key: `down ${host.name}`, level: 'bad', reason: 'host-down', detail, since: host.down_since}];
  }
  const found = problemsOf(host).map((one) => ({
    ...about,
    key: `${host.name} ${one.reason} ${one.detail}`,
    level: /** @type {const} */ ('bad'),
    reason: one.reason,
    detail: one.detail,
    since: one.since,
  }));
  if (!found.length && ready?.status === 'false') {
    const {reason, detail, since} = ready;
    found.push({...about, key: `ready ${host.name}`, level: 'bad', reason, detail, since});
  }
  const behind = conditionOf(host, 'converged');
  if (host.lag_revisions > 0 && !(now() - seconds(behind?.since) < LASTING_S)) {
    const detail = `${host.lag_revisions} revisions behind${behind?.detail ? ` ${behind.detail}` : ''}`;
    found.push({...about, key: `lag ${host.name}`, level: /** @type {any} */ ('warn'), reason: 'behind', detail, since: behind?.since ?? null});
  }
  return found;
}

/** What the hosts have not told already. @param {any} network @param {Set<string>} told @returns {Finding[]} */
function ofNetwork(network, told) {
  const about = {noun: 'network', name: network.name || network.id, href: to('networks', network.name || network.id), host: ''};
  const found = /** @type {Finding[]} */ ([]);
  const ready = conditionOf(network, 'ready');
  if (ready?.status === 'false' && !told.has(ready.reason)) {
    const {reason, detail, since} = ready;
    found.push({...about, key: `ready ${network.id}`, level: network.state === 'active' ? 'bad' : 'warn', reason, detail, since});
  }
  for (const subnet of network.subnets) {
    const percent = share(subnet.used, subnet.size);
    if (percent < FULL) continue;
    const detail = `${subnet.cidr} is ${percentage(percent)} full: ${subnet.used} of ${subnet.size} addresses`;
    found.push({...about, key: `full ${network.id} ${subnet.cidr}`, level: percent >= 100 ? 'bad' : 'warn', reason: 'full', detail, since: null});
  }
  return found;
}
