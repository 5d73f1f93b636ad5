/** What differs between two states of an object, as paths with the value before and after. Pure. */

/** @typedef {{path: string, before: unknown, after: unknown}} Difference */

const isPlain = (/** @type {unknown} */ value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * @param {any} before @param {any} after @param {string} [path]
 * @returns {Difference[]}
 */
export function differences(before, after, path = '') {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  if (!isPlain(before) || !isPlain(after)) {
    // One that came or went is told field by field, too.
    if (path === '' && (isPlain(before) || isPlain(after))) return differences(before ?? {}, after ?? {}, '');
    return [{path, before, after}];
  }
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return names.flatMap((name) => differences(before[name], after[name], path ? `${path}.${name}` : name));
}

/** @param {unknown} value */
export function valueText(value) {
  if (value === undefined) return '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}
