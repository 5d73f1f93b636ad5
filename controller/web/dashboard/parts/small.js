/** Small parts that many views use. Each is a function from data to elements. */

import {h, link, to} from '../lib/dom.js';
import {grouped, percentage, share} from '../lib/format.js';
import {conditionOf, problemsOf} from '../live/shapes.js';

/** How full something is; the number stands beside the bar. @param {number} used @param {number} size */
export function bar(used, size) {
  const percent = share(used, size);
  const level = percent >= 95 ? 'full' : percent >= 80 ? 'high' : '';
  return h('span', {class: 'use'},
    h('span', {class: `bar ${level}`, 'aria-hidden': 'true'}, h('span', {class: 'fill', width: percent})),
    h('span', {class: 'figures'}, `${grouped(used)}/${grouped(size)} (${percentage(percent)})`));
}

/** A state as a word with a sign before it: never by colour alone. @param {'good' | 'warn' | 'bad' | 'none'} kind @param {string} text */
export const chip = (kind, text) =>
  h('span', {class: `chip ${kind}`}, h('span', {'aria-hidden': 'true', class: 'sign'}, {good: '\u2713', warn: '!', bad: '\u2715', none: '\u2013'}[kind]), text);

/** @param {any} host @returns {['good' | 'warn' | 'bad' | 'none', string]} */
export function hostState(host) {
  if (!host.alive) return ['bad', host.state === 'alive' ? 'down' : host.state];
  if (host.state !== 'alive') return ['warn', host.state];
  if (problemsOf(host).length) return ['warn', 'problems'];
  const ready = conditionOf(host, 'ready');
  if (ready?.status === 'unknown') return ['none', ready.reason];
  if (ready?.status === 'false') return ['warn', ready.reason];
  return host.lag_revisions > 0 ? ['warn', 'behind'] : ['good', 'alive'];
}

/** @param {any} network @returns {['good' | 'warn' | 'bad' | 'none', string]} */
export function networkState(network) {
  if (network.state !== 'active') return ['warn', network.state];
  if (problemsOf(network).length) return ['bad', 'problems'];
  const ready = conditionOf(network, 'ready');
  if (ready?.status === 'unknown') return ['none', ready.reason];
  if (ready?.status === 'false') return ['warn', ready.reason];
  const converged = conditionOf(network, 'converged');
  if (converged?.status === 'false' && converged.reason !== 'no-hosts') return ['warn', converged.reason];
  return ['good', 'ready'];
}

/** @param {any} endpoint @returns {['good' | 'warn' | 'bad' | 'none', string]} */
export function endpointState(endpoint) {
  if (problemsOf(endpoint).length) return ['bad', 'problems'];
  const ready = conditionOf(endpoint, 'ready');
  if (ready?.status === 'unknown') return ['none', ready.reason];
  if (ready?.status === 'false' && ready.reason !== 'behind') return ['warn', ready.reason];
  if (endpoint.applied.converged) return ['good', ready?.reason ?? 'applied'];
  const waiting = endpoint.applied.waiting_for;
  return ['warn', waiting.length ? `waiting for ${waiting.join(', ')}` : 'waiting'];
}

/** @param {string} name */
export const networkLink = (name) => link(name, to('networks', name), {'data-focus': `network ${name}`});
/** @param {string} name */
export const hostLink = (name) => link(name, to('hosts', name), {'data-focus': `host ${name}`});
/** @param {any} endpoint */
export const endpointLink = (endpoint) =>
  link(endpoint.name || endpoint.id, endpointPlace(endpoint), {'data-focus': `endpoint ${endpoint.id}`});
/** @param {any} endpoint */
export const endpointPlace = (endpoint) => to('networks', endpoint.network_name, 'endpoints', endpoint.id);
/** @param {string} address */
export const addressLink = (address) => h('a', {href: `#/search?q=${encodeURIComponent(address)}`}, address);

/** @param {Array<import('../lib/dom.js').Child>} parts @param {string} between */
export function joined(parts, between = ', ') {
  return parts.flatMap((part, i) => (i ? [between, part] : [part]));
}

/** Facts as a list of terms. @param {Array<[string, import('../lib/dom.js').Children]>} facts */
export const factList = (facts) =>
  h('dl', {class: 'facts'}, facts.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value ?? '-'))));

/** @param {Record<string, string>} labels */
export function labelList(labels) {
  const names = Object.keys(labels ?? {});
  if (!names.length) return h('span', {class: 'muted'}, 'none');
  return h('span', {class: 'labels'}, names.map((name) => h('span', {class: 'label'}, labels[name] ? `${name}=${labels[name]}` : name)));
}

/** @param {string} title @param {...import('../lib/dom.js').Children} children */
export const section = (title, ...children) => h('section', {'aria-label': title}, h('h2', {}, title), ...children);
