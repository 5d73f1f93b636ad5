/**
 * Builds elements. The only place where what somebody else named becomes a part of the page: always as text or as the
 * value of a harmless attribute, never as markup. A test holds the other files to it.
 */

/** @typedef {Node | string | number | bigint | null | undefined | false} Child */
/** @typedef {Child | Child[] | Child[][]} Children */

const SAFE_LINK = /^(#|[a-z][a-z0-9/_.?=&%-]*$)/;

/**
 * h('a', {href: '#/hosts', class: 'x', on: {click}}, 'text', [more]).
 * `width` is a share of the parent: style attributes are forbidden by the page's policy, and this is not one.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...Children} children
 * @returns {HTMLElement}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) set(element, name, value);
  append(element, children);
  return element;
}

/** @param {HTMLElement} element @param {string} name @param {any} value */
function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === 'on') {
    for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
  } else if (name === 'width') {
    element.style.width = `${value}%`;
  } else if (/^on|^style$|^srcdoc$/i.test(name)) {
    throw new Error(`the attribute ${name} is not set like this`);
  } else if ((name === 'href' || name === 'src') && !SAFE_LINK.test(String(value))) {
    throw new Error(`a link may lead to this page only, not to ${value}`);
  } else {
    element.setAttribute(name, value === true ? '' : String(value));
  }
}

/** @param {Node} element @param {Children[]} children */
function append(element, children) {
  for (const child of children.flat(2)) {
    if (child === null || child === undefined || child === false) continue;
    element.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** @type {WeakMap<Element, string>} */
const shown = new WeakMap();

/**
 * Shows what `build` makes, unless `sign` says that it is shown already. Keeps the focus, if it was on an element with
 * a `data-focus` that is there again.
 * @param {Element} place
 * @param {unknown} sign
 * @param {() => Children} build
 */
export function show(place, sign, build) {
  const text = JSON.stringify(sign, (_, value) => (typeof value === 'bigint' ? `${value}n` : value)) ?? '';
  if (shown.get(place) === text) return;
  const active = document.activeElement;
  const focused = active && place.contains(active) ? active.getAttribute('data-focus') : null;
  const fresh = document.createDocumentFragment();
  append(fresh, [build()]);
  place.replaceChildren(fresh);
  shown.set(place, text);
  if (focused !== null) {
    const again = [...place.querySelectorAll('[data-focus]')].find((one) => one.getAttribute('data-focus') === focused);
    if (again instanceof HTMLElement) again.focus({preventScroll: true});
  }
}

/** @param {string} text @param {string} href @param {Record<string, any>} [props] */
export const link = (text, href, props = {}) => h('a', {href, ...props}, text);

/** @param {...string} parts @returns {string} a link within the page; names of others are encoded */
export const to = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;
