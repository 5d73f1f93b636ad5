/** The command line and the request that say the same as a view, each with a button that copies it. */

import {h, show} from '../lib/dom.js';

/** @typedef {import('../lib/commands.js').Command} Command */

export class CommandList {
  constructor(title = 'The same on the command line') {
    this.inner = h('div');
    this.element = h('section', {class: 'commands', 'aria-label': title},
      h('details', {open: window.innerWidth > 640}, h('summary', {}, title), this.inner));
  }

  /** @param {Command[]} commands */
  update(commands) {
    show(this.inner, commands, () => commands.map(({what, cli, curl}) => [
      h('p', {class: 'what'}, what),
      commandLine(cli, `Copy the kvnet command: ${what}`, 'cli'),
      curl && commandLine(curl, `Copy the curl command: ${what}`, 'curl'),
    ]).flat());
  }
}

/** @param {string} text @param {string} label @param {string} kind */
export function commandLine(text, label, kind) {
  const code = h('code', {tabindex: '0', 'data-command': kind}, text);
  const button = h('button', {type: 'button', 'aria-label': label, 'data-focus': text, on: {click: () => copy(text, code, button)}}, 'Copy');
  return h('div', {class: 'command'}, code, button);
}

/** @param {string} text @param {HTMLElement} shown @param {HTMLElement} button */
async function copy(text, shown, button) {
  let isDone = false;
  try {
    // Only where the page came by TLS or from this machine; elsewhere the older way is left.
    await navigator.clipboard.writeText(text);
    isDone = true;
  } catch {
    const selection = getSelection();
    selection?.selectAllChildren(shown);
    isDone = document.execCommand('copy');
  }
  button.textContent = isDone ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => (button.textContent = 'Copy'), 1500);
}
