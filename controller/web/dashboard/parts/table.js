/**
 * A table that sorts, filters and pages by itself and is brought up to date row by row: what did not change is not
 * touched, so that focus, selection and reading position stay. A thousand rows cost what a page of them costs.
 *
 * @typedef {{
 *   id: string, title: string,
 *   value: (row: any) => unknown, order?: (row: any) => unknown,
 *   cell?: (row: any) => import('../lib/dom.js').Children,
 *   isNumber?: boolean, isMinor?: boolean,
 * }} Column `value` is searched, tells whether a row changed, and sorts unless `order` does; `cell` shows it
 * @typedef {{sort?: string, filter?: string, page?: number}} State sort: the column's id, `-` in front: downwards
 */

import {h, show} from '../lib/dom.js';
import {grouped} from '../lib/format.js';

const ROWS = 100;
const TYPING_MS = 120;
const natural = new Intl.Collator('en', {numeric: true, sensitivity: 'base'});

export class Table {
  /**
   * @param {{
   *   caption: string, columns: Column[], key: (row: any) => string, empty?: string, noun?: string,
   *   state?: State, onState?: (state: State) => void, hasFilter?: boolean,
   * }} options
   */
  constructor(options) {
    this.options = options;
    /** @type {State} */
    this.state = {...options.state};
    /** @type {any[]} */
    this.rows = [];
    /** @type {Map<string, {element: HTMLElement, sign: string}>} */
    this.drawn = new Map();
    this.body = h('tbody');
    this.head = h('tr');
    this.count = h('span', {class: 'count'});
    this.pager = h('div', {class: 'pager'});
    this.nothing = h('p', {class: 'muted nothing'});
    this.field = this.makeField();
    this.scroll = h('div', {class: 'scroll'},
      h('table', {}, h('caption', {class: 'unseen'}, options.caption), h('thead', {}, this.head), this.body));
    this.element = h('div', {class: 'table'},
      h('div', {class: 'tools'}, this.field, this.count), this.scroll, this.nothing, this.pager);
  }

  makeField() {
    if (this.options.hasFilter === false) return null;
    const name = `Filter: ${this.options.caption}`;
    const field = h('input', {type: 'search', placeholder: 'Filter', 'aria-label': name, value: this.state.filter ?? ''});
    let timer = 0;
    field.addEventListener('input', () => {
      clearTimeout(timer);
      const filter = /** @type {HTMLInputElement} */ (field).value;
      timer = setTimeout(() => this.turn({filter, page: 0}), TYPING_MS);
    });
    return field;
  }

  /** @param {State} change */
  turn(change) {
    Object.assign(this.state, change);
    this.options.onState?.(this.state);
    this.draw();
  }

  /** @param {any[]} rows */
  update(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const found = this.ordered(this.filtered());
    const pages = Math.max(1, Math.ceil(found.length / ROWS));
    const page = Math.min(this.state.page ?? 0, pages - 1);
    const first = page * ROWS;
    this.drawHead();
    this.drawRows(found.slice(first, first + ROWS));
    const noun = this.options.noun ?? 'rows';
    const text = found.length === this.rows.length ? grouped(found.length) : `${grouped(found.length)} of ${grouped(this.rows.length)}`;
    // Told to a screen reader while somebody filters, not at every change of the world.
    this.count.setAttribute('aria-live', document.activeElement === this.field ? 'polite' : 'off');
    show(this.count, [text], () => `${text} ${noun}`);
    this.drawPager(page, pages, first, found.length);
    const empty = this.rows.length ? 'Nothing fits the filter.' : (this.options.empty ?? 'There are none.');
    this.nothing.hidden = found.length > 0;
    show(this.nothing, [empty], () => empty);
    this.scroll.hidden = found.length === 0;
  }

  filtered() {
    const words = (this.state.filter ?? '').toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return this.rows;
    return this.rows.filter((row) => {
      const text = this.options.columns.map((column) => textOf(column.value(row))).join('\n').toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }

  /** @param {any[]} rows */
  ordered(rows) {
    const wanted = this.state.sort ?? '';
    const column = this.options.columns.find((one) => one.id === wanted.replace(/^-/, ''));
    if (!column) return rows;
    const sign = wanted.startsWith('-') ? -1 : 1;
    const keyed = rows.map((row) => ({row, value: (column.order ?? column.value)(row)}));
    return keyed.sort((a, b) => sign * compare(a.value, b.value)).map(({row}) => row);
  }

  drawHead() {
    const sort = this.state.sort ?? '';
    show(this.head, [sort], () =>
      this.options.columns.map((column) => {
        const isSorted = sort.replace(/^-/, '') === column.id;
        const direction = isSorted ? (sort.startsWith('-') ? 'descending' : 'ascending') : 'none';
        const next = sort === column.id ? `-${column.id}` : column.id;
        const button = h('button', {type: 'button', class: 'sort', 'data-focus': column.id, on: {click: () => this.turn({sort: next, page: 0})}},
          column.title, h('span', {class: 'arrow', 'aria-hidden': 'true'}, {none: '', ascending: '\u25b2', descending: '\u25bc'}[direction]));
        return h('th', {scope: 'col', 'aria-sort': direction, class: classOf(column)}, button);
      }));
  }

  /** @param {any[]} rows */
  drawRows(rows) {
    const {columns, key} = this.options;
    const kept = new Map();
    let place = this.body.firstElementChild;
    for (const row of rows) {
      const name = key(row);
      const sign = columns.map((column) => textOf(column.value(row))).join('\u0000');
      let drawn = this.drawn.get(name);
      if (!drawn) drawn = {element: h('tr'), sign: ''};
      if (drawn.sign !== sign) {
        show(drawn.element, sign, () => columns.map((column, i) => this.cell(column, row, i)));
        drawn.sign = sign;
      }
      kept.set(name, drawn);
      if (drawn.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(drawn.element, place);
    }
    for (const [name, {element}] of this.drawn) if (!kept.has(name)) element.remove();
    this.drawn = kept;
  }

  /** @param {Column} column @param {any} row @param {number} i */
  cell(column, row, i) {
    const content = column.cell ? column.cell(row) : textOf(column.value(row));
    return h(i ? 'td' : 'th', {class: classOf(column), scope: i ? null : 'row'}, content);
  }

  /** @param {number} page @param {number} pages @param {number} first @param {number} total */
  drawPager(page, pages, first, total) {
    this.pager.hidden = pages < 2;
    show(this.pager, [page, pages, total], () => [
      h('button', {type: 'button', 'data-focus': 'back', disabled: page === 0, on: {click: () => this.turn({page: page - 1})}}, 'Previous'),
      h('span', {}, `${grouped(first + 1)} to ${grouped(Math.min(total, first + ROWS))} of ${grouped(total)}`),
      h('button', {type: 'button', 'data-focus': 'next', disabled: page === pages - 1, on: {click: () => this.turn({page: page + 1})}}, 'Next'),
    ]);
  }
}

/** @param {Column} column */
const classOf = (column) => [column.isNumber && 'number', column.isMinor && 'minor'].filter(Boolean).join(' ') || null;

/** @param {unknown} value @returns {string} */
function textOf(value) {
  if (value === null || value === undefined) return '';
  return Array.isArray(value) ? value.map(textOf).join(' ') : String(value);
}

/** Numbers by value, names as people count them, what is missing last. @param {any} a @param {any} b */
function compare(a, b) {
  const isNumber = (/** @type {any} */ one) => typeof one === 'number' || typeof one === 'bigint';
  if (isNumber(a) && isNumber(b)) return a < b ? -1 : a > b ? 1 : 0;
  const [left, right] = [textOf(a), textOf(b)];
  if (!left || !right) return left ? -1 : right ? 1 : 0;
  return natural.compare(left, right);
}
