/**
 * The cells of an address map: a window of a subnet, cut into at most 4,096 equal parts. Pure.
 * @typedef {{kind: string, text: string, href: string}} Holder
 * @typedef {{first: bigint, size: bigint, used: number, holder: Holder | null}} Cell
 * @typedef {{family: 4 | 6, first: bigint, size: bigint}} Window
 */

const MOST_CELLS = 4096n;

/** @param {bigint} size a power of two */
const bitsOf = (size) => size.toString(2).length - 1;

/** @param {Window} window */
export function gridOf(window) {
  const cells = window.size < MOST_CELLS ? window.size : MOST_CELLS;
  const columns = 1 << Math.ceil(bitsOf(cells) / 2);
  return {cells: Number(cells), columns, rows: Math.ceil(Number(cells) / columns), each: window.size / cells};
}

/** The smallest part of a subnet, as large as a map can show it whole if possible, that has all that is used.
 * @param {import('../lib/addresses.js').Block} block @param {bigint[]} used @returns {Window}
 */
export function fittingWindow(block, used) {
  let size = block.size < MOST_CELLS ? block.size : MOST_CELLS;
  const lowest = used.length ? used.reduce((a, b) => (a < b ? a : b)) : block.first;
  const highest = used.length ? used.reduce((a, b) => (a > b ? a : b)) : block.first;
  let first = lowest & ~(size - 1n);
  while (size < block.size && highest >= first + size) {
    size <<= 1n;
    first = lowest & ~(size - 1n);
  }
  return {family: block.family, first, size};
}

/** @param {Window} window @param {Map<bigint, Holder>} holders @returns {Cell[]} */
export function cellsOf(window, holders) {
  const {cells, each} = gridOf(window);
  /** @type {Cell[]} */
  const made = Array.from({length: cells}, (_, i) => ({first: window.first + BigInt(i) * each, size: each, used: 0, holder: null}));
  for (const [address, holder] of holders) {
    const offset = address - window.first;
    if (offset < 0n || offset >= window.size) continue;
    const cell = made[Number(offset / each)];
    if (holder.kind !== 'reserved') cell.used += 1;
    if (each === 1n) cell.holder = holder;
  }
  return made;
}

/** The part of a window that one cell stands for. @param {Window} window @param {Cell} cell @returns {Window} */
export const zoomed = (window, cell) => ({family: window.family, first: cell.first, size: cell.size});
