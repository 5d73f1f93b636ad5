/**
 * The graph of a network, drawn by cytoscape, which is loaded only where a graph is shown. Laid out anew only when nodes
 * come or go; what somebody moved stays where it was put. A canvas says nothing to a screen reader, so the arrow keys go
 * from node to node and a line of text tells which; the table beside it has the same content.
 */

import {h} from '../lib/dom.js';
import {Places} from './graphshape.js';

const COLOURS = {good: '--good', warn: '--warn', bad: '--bad', none: '--line-strong'};

export class Graph {
  constructor() {
    this.canvas = h('div', {class: 'graph', tabindex: '0', role: 'application', 'aria-label': 'Graph of hosts and endpoints; arrow keys move, Enter opens'});
    this.told = h('p', {class: 'told', role: 'status'}, 'Loading the graph.');
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ click) =>
      h('button', {type: 'button', 'aria-label': label, on: {click}}, text);
    this.element = h('div', {class: 'graphic'},
      h('div', {class: 'tools'},
        button('+', 'Larger', () => this.zoom(1.3)), button('\u2212', 'Smaller', () => this.zoom(1 / 1.3)), button('Fit', 'Fit all of it', () => this.fit())),
      this.canvas, this.told);
    this.places = new Places();
    /** @type {Map<string, {x: number, y: number}>} */
    this.moved = new Map();
    /** @type {any} */
    this.cy = null;
    this.structure = '';
    this.content = '';
    this.at = -1;
    /** @type {import('./graphshape.js').GraphNode[]} */
    this.nodes = [];
    this.canvas.addEventListener('keydown', (event) => this.key(event));
    this.theme = matchMedia('(prefers-color-scheme: dark)');
    this.restyle = () => this.cy?.style(styles());
    this.theme.addEventListener('change', this.restyle);
    this.isClosed = false;
  }

  async load() {
    try {
      const {default: cytoscape} = await import('../vendor/cytoscape.esm.min.mjs');
      if (this.isClosed) return;
      this.cy = cytoscape({
        container: this.canvas,
        style: styles(),
        layout: {name: 'preset'},
        minZoom: 0.1,
        maxZoom: 3,
        // The page scrolls over it, with the wheel and with a finger.
        userZoomingEnabled: false,
        userPanningEnabled: !matchMedia('(pointer: coarse)').matches,
        boxSelectionEnabled: false,
      });
      this.cy.on('tap', 'node', (/** @type {any} */ event) => this.open(event.target.data('href')));
      this.cy.on('mouseover', 'node', (/** @type {any} */ event) => this.tell(event.target.data('label')));
      this.cy.on('dragfree', 'node', (/** @type {any} */ event) => this.moved.set(event.target.id(), {...event.target.position()}));
      this.told.textContent = '';
      this.draw();
    } catch {
      this.told.textContent = 'The graph could not be loaded; the table has the same content.';
    }
  }

  /** @param {{nodes: import('./graphshape.js').GraphNode[], edges: import('./graphshape.js').GraphEdge[]}} graph */
  update(graph) {
    this.graph = graph;
    this.draw();
  }

  draw() {
    if (!this.cy || !this.graph) return;
    const {nodes, edges} = this.graph;
    const structure = JSON.stringify([nodes.map((one) => [one.id, one.kind, one.parent]), edges.map((one) => one.id)]);
    const content = JSON.stringify([nodes, edges]);
    if (content === this.content) return;
    const isAnother = structure !== this.structure;
    this.nodes = nodes;
    this.cy.batch(() => {
      if (isAnother) this.rebuild(nodes, edges);
      for (const one of [...nodes, ...edges]) this.cy.getElementById(one.id).data(one);
    });
    if (isAnother) this.fit();
    this.structure = structure;
    this.content = content;
  }

  /** @param {import('./graphshape.js').GraphNode[]} nodes @param {import('./graphshape.js').GraphEdge[]} edges */
  rebuild(nodes, edges) {
    const wanted = new Map([...nodes, ...edges].map((one) => [one.id, one]));
    const places = this.places.of(nodes);
    // A box cannot become a plain node or move to another parent: then it is another element.
    this.cy.elements().filter((/** @type {any} */ one) => {
      const now = /** @type {any} */ (wanted.get(one.id()));
      return !now || now.kind !== one.data('kind') || now.parent !== one.data('parent');
    }).remove();
    for (const one of nodes) {
      const position = this.moved.get(one.id) ?? places.get(one.id);
      const known = this.cy.getElementById(one.id);
      if (known.empty()) this.cy.add({group: 'nodes', data: {...one}, position: {...position}});
      else if (one.kind !== 'host') known.position({...position});
    }
    for (const one of edges) if (this.cy.getElementById(one.id).empty()) this.cy.add({group: 'edges', data: {...one}});
  }

  fit() {
    this.cy?.resize();
    this.cy?.fit(undefined, 20);
    if (this.cy?.zoom() > 1.4) this.cy.zoom(1.4), this.cy.center();
  }

  /** @param {number} factor */
  zoom(factor) {
    this.cy?.zoom({level: this.cy.zoom() * factor, renderedPosition: {x: this.cy.width() / 2, y: this.cy.height() / 2}});
  }

  /** @param {string} href */
  open(href) {
    if (href) location.hash = href;
  }

  /** @param {string} text */
  tell(text) {
    this.told.textContent = text.replace('\n', ' - ');
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const last = this.nodes.length - 1;
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (step) this.at = Math.min(last, Math.max(0, this.at + step));
    else if (event.key === 'Home') this.at = 0;
    else if (event.key === 'End') this.at = last;
    else if (event.key === 'Enter' && this.nodes[this.at]) this.open(this.nodes[this.at].href);
    else return;
    event.preventDefault();
    const node = this.nodes[this.at];
    if (!node) return;
    this.cy.elements().unselect();
    this.cy.getElementById(node.id).select();
    this.tell(node.label);
  }

  close() {
    this.isClosed = true;
    this.theme.removeEventListener('change', this.restyle);
    this.cy?.destroy();
  }
}

/** In the page's own colours. */
function styles() {
  const own = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => own.getPropertyValue(name).trim();
  const text = {label: 'data(label)', color: colour('--text'), 'font-size': 11, 'font-family': 'sans-serif', 'text-wrap': 'wrap', 'text-max-width': 104};
  const states = Object.entries(COLOURS).map(([state, name]) => ({
    selector: `[state = "${state}"]`,
    style: {'border-color': colour(name), 'line-color': colour(name)},
  }));
  return [
    {selector: 'node', style: {...text, 'background-color': colour('--panel'), 'border-width': 2, 'text-valign': 'center', shape: 'round-rectangle', width: 100, height: 38}},
    {selector: 'node[kind = "host"]', style: {'background-color': colour('--back'), 'text-valign': 'top', 'text-margin-y': -2, padding: 14, 'font-weight': 'bold', 'text-max-width': 300}},
    {selector: 'node[kind = "group"]', style: {width: 104, height: 46}},
    {selector: 'node[kind = "network"]', style: {'background-color': colour('--accent-soft'), 'border-color': colour('--accent'), 'font-weight': 'bold', width: 130, 'text-max-width': 126}},
    {selector: 'node[kind = "peer"]', style: {'border-style': 'dashed', width: 120}},
    // Below the boxes, so that no line crosses an endpoint.
    {selector: 'edge', style: {width: 2, 'curve-style': 'straight', 'z-compound-depth': 'bottom'}},
    ...states,
    {selector: 'node:selected', style: {'border-width': 4, 'border-color': colour('--accent')}},
  ];
}
