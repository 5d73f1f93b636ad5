/** A graphic and the table that says the same: one is shown at a time, both can be linked to, the table is never lost. */

import {h} from '../lib/dom.js';
import {refine} from '../lib/router.js';

export class Twin {
  /**
   * @param {string} name of the setting in the address
   * @param {URLSearchParams} query
   * @param {HTMLElement} graphic @param {HTMLElement} table @param {string} noun
   */
  constructor(name, query, graphic, table, noun) {
    this.name = name;
    this.graphic = graphic;
    this.table = table;
    this.noun = noun;
    this.button = h('button', {type: 'button', class: 'twin', on: {click: () => this.turn(!this.isTable, true)}});
    this.element = h('div', {class: 'twins'}, this.button, graphic, table);
    this.turn(query.get(name) === 'table');
  }

  /** @param {boolean} isTable @param {boolean} [isChosen] */
  turn(isTable, isChosen = false) {
    this.isTable = isTable;
    this.graphic.hidden = isTable;
    this.table.hidden = !isTable;
    this.button.textContent = isTable ? `Show as ${this.noun}` : 'Show as table';
    if (isChosen) refine({[this.name]: isTable ? 'table' : null});
  }
}
