/**
 * IPv4 and IPv6 addresses and blocks as numbers. Pure.
 * @typedef {{family: 4 | 6, value: bigint}} Address
 * @typedef {{family: 4 | 6, first: bigint, length: number, size: bigint}} Block
 */

const BITS = {4: 32, 6: 128};

/** @param {string} text @returns {Address | null} */
export function parseAddress(text) {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) {
    const parts = text.split('.').map(Number);
    if (parts.some((part) => part > 255)) return null;
    return {family: 4, value: parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n)};
  }
  return text.includes(':') ? parse6(text) : null;
}

/** @param {string} text @returns {Address | null} */
function parse6(text) {
  const halves = text.toLowerCase().split('::');
  if (halves.length > 2 || !/^[0-9a-f:.]+$/i.test(text)) return null;
  const groups = halves.map((half) => (half === '' ? [] : half.split(':').flatMap(groupsOf)));
  const given = groups.reduce((sum, half) => sum + half.length, 0);
  if (halves.length === 1 ? given !== 8 : given > 7) return null;
  const all = halves.length === 1 ? groups[0] : [...groups[0], ...Array(8 - given).fill('0'), ...groups[1]];
  if (all.some((group) => !/^[0-9a-f]{1,4}$/.test(group))) return null;
  return {family: 6, value: all.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n)};
}

/** @param {string} group @returns {string[]} */
function groupsOf(group) {
  const v4 = group.includes('.') ? parseAddress(group) : null;
  return v4 ? [(v4.value >> 16n).toString(16), (v4.value & 0xffffn).toString(16)] : [group];
}

/** @param {string} text @returns {Block | null} */
export function parseBlock(text) {
  const [address, length, ...more] = text.split('/');
  const parsed = parseAddress(address);
  if (!parsed || more.length || !/^\d{1,3}$/.test(length ?? '') || Number(length) > BITS[parsed.family]) return null;
  const size = 1n << BigInt(BITS[parsed.family] - Number(length));
  return {family: parsed.family, first: parsed.value & ~(size - 1n), length: Number(length), size};
}

/** @param {Block} block @param {Address} address */
export const contains = (block, address) =>
  block.family === address.family && address.value >= block.first && address.value < block.first + block.size;

/** @param {4 | 6} family @param {bigint} value */
export function textOf(family, value) {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.');
  const groups = Array.from({length: 8}, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  let best = {at: -1, length: 1};
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === '0') end++;
    if (end - i > best.length) best = {at: i, length: end - i};
    i = Math.max(i, end - 1);
  }
  if (best.at < 0) return groups.join(':');
  return `${groups.slice(0, best.at).join(':')}::${groups.slice(best.at + best.length).join(':')}`;
}

/** @param {Block} block */
export const blockText = (block) => `${textOf(block.family, block.first)}/${block.length}`;

/** Sorts addresses by value; what is none comes last. @param {string | null} text */
export function addressOrder(text) {
  const parsed = text ? parseAddress(text.split('/')[0]) : null;
  return parsed ? (BigInt(parsed.family) << 128n) | parsed.value : (1n << 140n);
}
