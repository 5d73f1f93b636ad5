/**
 * A map of a subnet's addresses on a canvas: a cell each, or, of a large subnet, a cell for a part of it that opens with
 * a click. Hover, touch or the arrow keys tell who has an address, Enter or a click leads there. The table twin has the
 * same content. Shows what the lists know; whether a free address is cooling down is told by the search it leads to.
 */

import {h, show} from '../lib/dom.js';
import {textOf} from '../lib/addresses.js';
import {grouped} from '../lib/format.js';
import {cellsOf, fittingWindow, gridOf, zoomed} from './mapshape.js';

/** @type {Record<string, string>} */
const COLOURS = {free: '--cell', endpoint: '--accent', reservation: '--warn', gateway: '--good', reserved: '--line-strong'};

export class AddressMap {
  constructor() {
    this.canvas = /** @type {HTMLCanvasElement} */ (h('canvas', {class: 'addresses', tabindex: '0', role: 'application'}));
    this.told = h('p', {class: 'told', role: 'status'}, 'Point at a cell, or use the arrow keys.');
    this.out = h('button', {type: 'button', hidden: true, on: {click: () => this.zoomOut()}}, 'Out');
    this.range = h('span', {class: 'muted'});
    this.element = h('div', {class: 'graphic'}, h('div', {class: 'tools'}, this.out, this.range), this.canvas, this.told, legend());
    /** @type {import('../lib/addresses.js').Block | null} */
    this.block = null;
    /** @type {import('./mapshape.js').Window[]} */
    this.windows = [];
    /** @type {import('./mapshape.js').Cell[]} */
    this.cells = [];
    /** @type {Map<bigint, import('./mapshape.js').Holder>} */
    this.holders = new Map();
    this.at = 0;
    this.edition = '';
    this.canvas.addEventListener('mousemove', (event) => this.point(this.cellAt(event)));
    this.canvas.addEventListener('click', (event) => (this.point(this.cellAt(event)), this.open()));
    this.canvas.addEventListener('keydown', (event) => this.key(event));
    this.canvas.addEventListener('focus', () => this.point(this.at));
    this.canvas.addEventListener('blur', () => this.draw());
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.element);
    this.theme = matchMedia('(prefers-color-scheme: dark)');
    this.redraw = () => this.draw();
    this.theme.addEventListener('change', this.redraw);
  }

  /** @param {import('../lib/addresses.js').Block} block @param {Map<bigint, import('./mapshape.js').Holder>} holders @param {string} edition */
  update(block, holders, edition) {
    if (this.edition === edition) return;
    this.edition = edition;
    const isAnother = this.block?.first !== block.first || this.block?.length !== block.length;
    this.block = block;
    this.holders = holders;
    // Where one cannot see all of it at once, begin where something is.
    if (isAnother) this.windows = [fittingWindow(block, [...holders].filter(([, one]) => one.kind !== 'reserved').map(([at]) => at))];
    this.refill();
  }

  get window() {
    return this.windows[this.windows.length - 1];
  }

  refill() {
    this.cells = cellsOf(this.window, this.holders);
    this.at = Math.min(this.at, this.cells.length - 1);
    const {family, first, size} = this.window;
    const text = `${textOf(family, first)} to ${textOf(family, first + size - 1n)}`;
    show(this.range, [text], () => text);
    this.out.hidden = this.windows.length < 2 && size === this.block?.size;
    this.canvas.setAttribute('aria-label', `Map of the addresses ${text}; arrow keys move, Enter opens`);
    this.draw();
  }

  zoomOut() {
    if (this.windows.length > 1) this.windows.pop();
    else if (this.block) this.windows = [{family: this.block.family, first: this.block.first, size: this.block.size}];
    this.refill();
  }

  draw() {
    if (!this.cells.length) return;
    const {columns, rows} = gridOf(this.window);
    const ratio = window.devicePixelRatio || 1;
    const side = Math.max(4, Math.min(26, Math.floor((this.element.clientWidth - 4) / columns)));
    this.side = side;
    const [width, height] = [columns * side, rows * side];
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext('2d'));
    pen.scale(ratio, ratio);
    const own = getComputedStyle(document.documentElement);
    const colour = (/** @type {string} */ name) => own.getPropertyValue(name).trim();
    const gap = side > 6 ? 2 : 1;
    this.cells.forEach((cell, i) => {
      const [x, y] = [(i % columns) * side, Math.floor(i / columns) * side];
      const name = cell.holder ? (COLOURS[cell.holder.kind] ?? '--accent') : cell.used ? '--accent' : '--cell';
      pen.fillStyle = colour(name);
      pen.fillRect(x, y, side - gap, side - gap);
      if (cell.holder?.kind === 'reservation' || cell.holder?.kind === 'gateway') this.sign(pen, x, y, side, colour('--panel'), cell.holder.kind);
    });
    if (document.activeElement !== this.canvas) return;
    pen.strokeStyle = colour('--text');
    pen.lineWidth = 2;
    pen.strokeRect((this.at % columns) * side, Math.floor(this.at / columns) * side, side - gap, side - gap);
  }

  /** Not by colour alone. @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} side @param {string} colour @param {string} kind */
  sign(pen, x, y, side, colour, kind) {
    if (side < 10) return;
    pen.fillStyle = colour;
    pen.font = `bold ${Math.floor(side * 0.6)}px sans-serif`;
    pen.fillText(kind === 'gateway' ? 'G' : 'R', x + side * 0.22, y + side * 0.7);
  }

  /** @param {MouseEvent} event */
  cellAt(event) {
    const {columns} = gridOf(this.window);
    const box = this.canvas.getBoundingClientRect();
    const column = Math.min(columns - 1, Math.floor((event.clientX - box.left) / (this.side ?? 1)));
    return Math.floor((event.clientY - box.top) / (this.side ?? 1)) * columns + column;
  }

  /** @param {number} i */
  point(i) {
    if (!this.cells[i]) return;
    this.at = i;
    this.draw();
    this.told.textContent = this.describe(this.cells[i]);
  }

  /** @param {import('./mapshape.js').Cell} cell */
  describe(cell) {
    const first = textOf(this.window.family, cell.first);
    if (cell.size === 1n) return `${first}: ${cell.holder ? cell.holder.text : 'nobody has it'}`;
    return `${first} and ${grouped(cell.size - 1n)} more: ${cell.used} in use`;
  }

  open() {
    const cell = this.cells[this.at];
    if (!cell) return;
    if (cell.size > 1n) {
      this.windows.push(zoomed(this.window, cell));
      this.at = 0;
      this.refill();
    } else location.hash = cell.holder?.href || `#/search?q=${encodeURIComponent(textOf(this.window.family, cell.first))}`;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const {columns} = gridOf(this.window);
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
    if (step) this.point(Math.max(0, Math.min(this.cells.length - 1, this.at + step)));
    else if (event.key === 'Home') this.point(0);
    else if (event.key === 'End') this.point(this.cells.length - 1);
    else if (event.key === 'Enter') this.open();
    else if (event.key === 'Escape' && !this.out.hidden) this.zoomOut();
    else return;
    event.preventDefault();
  }

  close() {
    this.watcher.disconnect();
    this.theme.removeEventListener('change', this.redraw);
  }
}

const legend = () => h('ul', {class: 'legend', 'aria-label': 'Colours'},
  [['endpoint', 'endpoint'], ['gateway', 'G: gateway'], ['reservation', 'R: reserved by name'], ['reserved', 'not usable'], ['free', 'free']]
    .map(([kind, text]) => h('li', {}, h('span', {class: `swatch ${kind}`, 'aria-hidden': 'true'}), text)));
