/**
 * The command lines that say the same as a view. Pure. Whatever is named here may come from anybody: every word is
 * quoted for a POSIX shell, and control characters cannot end a line in a terminal.
 * @typedef {{what: string, cli: string, curl: string}} Command
 */

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;
const DEFAULT = 'http://127.0.0.1:7480';

/** @param {string} word */
export function quoted(word) {
  if (PLAIN.test(word)) return word;
  if (!/[\u0000-\u001f\u007f-\u009f]/.test(word)) return `'${word.replaceAll("'", `'\\''`)}'`;
  const escaped = word.replace(/[\\']/g, '\\$&').replace(/[\u0000-\u001f\u007f-\u009f]/g, escape);
  return `$'${escaped}'`;
}

/** @param {string} character */
function escape(character) {
  const code = character.charCodeAt(0);
  return code < 128 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
}

/** A name that begins with a dash would be an option. @param {string} name */
const operand = (name) => (name.startsWith('-') ? ['--', name] : [name]);

/** Where the API is, as the page sees it. */
export const base = () => document.baseURI.replace(/[#?].*$/, '').replace(/[^/]*$/, '');

export class Commands {
  /** @param {string} controller the API's address, with a slash at its end */
  constructor(controller = base()) {
    this.controller = controller;
  }

  /** @param {...string} words */
  cli(...words) {
    const url = this.controller.replace(/\/$/, '');
    return ['kvnet', ...(url === DEFAULT ? [] : ['--controller', url]), ...words].map(quoted).join(' ');
  }

  /** @param {string} path @param {Record<string, string>} [query] */
  curl(path, query = {}) {
    const asked = new URLSearchParams(query).toString();
    return `curl -s ${quoted(this.controller + path + (asked ? `?${asked}` : ''))}`;
  }

  /** @param {string} path @param {Record<string, string>} body */
  post(path, body) {
    const words = ['-X', 'POST', this.controller + path, '-H', 'Content-Type: application/json', '-d', JSON.stringify(body)];
    return `curl -s ${words.map(quoted).join(' ')}`;
  }

  /** @returns {Command[]} */
  overview() {
    return [{what: 'The cluster', cli: this.cli('status'), curl: this.curl('v1/status')}];
  }

  /** @returns {Command[]} */
  networks() {
    return [{what: 'All networks', cli: this.cli('network', 'ls'), curl: this.curl('v1/networks', {limit: '500'})}];
  }

  /** @param {string} name @returns {Command[]} */
  network(name) {
    const path = `v1/networks/${encodeURIComponent(name)}`;
    return [
      {what: 'The network', cli: this.cli('network', 'inspect', ...operand(name)), curl: this.curl(path)},
      {
        what: 'Its endpoints',
        cli: this.cli('endpoint', 'ls', ...operand(name)),
        curl: this.curl(`${path}/endpoints`, {limit: '500'}),
      },
    ];
  }

  /** @returns {Command[]} */
  hosts() {
    return [
      {what: 'All hosts', cli: this.cli('host', 'ls'), curl: this.curl('v1/hosts', {limit: '500'})},
      {what: 'Who reaches whom', cli: this.cli('connectivity', 'test'), curl: this.post('v1/connectivity', {})},
    ];
  }

  /** @param {string} name @returns {Command[]} */
  host(name) {
    const path = `v1/hosts/${encodeURIComponent(name)}`;
    return [{what: 'The host', cli: this.cli('host', 'inspect', ...operand(name)), curl: this.curl(path)}];
  }

  /** @param {string} network @param {string} id @returns {Command[]} */
  endpoint(network, id) {
    const path = `v1/networks/${encodeURIComponent(network)}/endpoints/${encodeURIComponent(id)}`;
    return [
      {what: 'The endpoint', cli: this.cli('endpoint', 'inspect', ...operand(network), ...operand(id)), curl: this.curl(path)},
    ];
  }

  /** @param {number} since @returns {Command[]} */
  events(since) {
    const curl = `curl -sN ${quoted(`${this.controller}v1/events?since=${since}`)}`;
    return [
      {what: 'What happened', cli: this.cli('events'), curl: this.curl('v1/journal', {limit: '100'})},
      {what: 'What happens from here on', cli: this.cli('events', '--watch', '--since', String(since)), curl},
    ];
  }

  /** @param {string} asked @param {'address' | 'block' | 'port' | 'name'} kind @returns {Command[]} */
  search(asked, kind) {
    if (kind === 'name') {
      return [
        {
          what: 'Endpoints of that name',
          cli: this.cli('endpoint', 'ls', '--filter', `name=${asked}`),
          curl: this.curl('v1/endpoints', {name: asked}),
        },
      ];
    }
    if (kind === 'port') {
      const [host, port, protocol] = asked.split(/[:/]/);
      const curl = this.curl(`v1/hosts/${encodeURIComponent(host)}/ports`, {port, ...(protocol ? {protocol} : {})});
      return [{what: 'Who has it', cli: this.cli('ipam', 'show', asked), curl}];
    }
    const part = kind === 'address' ? 'addresses' : 'subnets';
    const path = `v1/ipam/${part}/${asked.split('/').map(encodeURIComponent).join('/')}`;
    return [{what: 'Who has it', cli: this.cli('ipam', 'show', ...operand(asked)), curl: this.curl(path)}];
  }
}
