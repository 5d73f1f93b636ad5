/** Addresses of views: `#/networks/my-net?tab=map`. Behind the hash, so that any path prefix in front of kvnet works. */

/** @typedef {{path: string[], query: URLSearchParams, text: string}} Place */

/** @param {string} hash @returns {Place} */
export function placeOf(hash) {
  const text = hash.replace(/^#\/?/, '');
  const [path, query] = [text.split('?', 1)[0], text.includes('?') ? text.slice(text.indexOf('?') + 1) : ''];
  return {path: path.split('/').filter(Boolean).map(decoded), query: new URLSearchParams(query), text};
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/**
 * The same view with other settings: does not become a step of "back".
 * @param {Record<string, string | null>} changes a setting that is null or '' goes away
 */
export function refine(changes) {
  const place = placeOf(location.hash);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') place.query.delete(name);
    else place.query.set(name, value);
  }
  const query = place.query.toString();
  history.replaceState(history.state, '', `#/${place.path.map(encodeURIComponent).join('/')}${query ? `?${query}` : ''}`);
}
