/** Numbers, shares, times and addresses as people read them. Pure, but for `now`. */

import {h} from './dom.js';
import {now} from './time.js';

/** @param {number} count @param {string} one @param {string} [many] */
export const plural = (count, one, many = `${one}s`) => `${grouped(count)} ${count === 1 ? one : many}`;

/** @param {number | bigint} value */
export function grouped(value) {
  const number = typeof value === 'bigint' ? value : BigInt(Math.round(value));
  for (const bits of [128, 96, 80, 64, 48]) {
    const power = 1n << BigInt(bits);
    if (number > (1n << 47n) && number <= power && power - number < power >> 8n) return `2^${bits}`;
  }
  return number.toLocaleString('en');
}

/** @param {number} used @param {number} size @returns {number} 0 to 100 */
export const share = (used, size) => (size > 0 ? Math.min(100, (used / size) * 100) : 0);

/** @param {number} percent */
export function percentage(percent) {
  if (percent > 0 && percent < 1) return '<1%';
  return `${Math.floor(percent)}%`;
}

/** @param {number} seconds */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h${whole < 36000 ? `${Math.floor((whole % 3600) / 60)}m` : ''}`;
  return `${Math.floor(whole / 86400)}d`;
}

/** @param {string | null | undefined} moment RFC 3339 */
export const seconds = (moment) => (moment ? Date.parse(moment) / 1000 : NaN);

/**
 * How long ago, kept true by `tick`; the moment itself is in the title.
 * @param {string | null | undefined} moment
 * @param {string} [otherwise]
 */
export function ago(moment, otherwise = '-') {
  const at = seconds(moment);
  if (!Number.isFinite(at)) return otherwise;
  return h('time', {datetime: moment, title: moment, 'data-age': at}, span(now() - at));
}

/** Brings the ages on the page up to date. */
export function tick(root = document) {
  const moment = now();
  for (const element of root.querySelectorAll('time[data-age]')) {
    const text = span(moment - Number(element.getAttribute('data-age')));
    if (element.textContent !== text) element.textContent = text;
  }
}

/** @param {string | null | undefined} moment */
export function clock(moment) {
  const at = new Date(moment ?? NaN);
  if (Number.isNaN(at.getTime())) return '-';
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

/** @param {Record<string, string>} labels */
export const labelTexts = (labels) => Object.entries(labels).map(([key, value]) => (value ? `${key}=${value}` : key));
