/** Who has it: an address, a block of addresses, a port of a host, or anything with that name. */

import {h, link, show} from '../lib/dom.js';
import {parseAddress, parseBlock} from '../lib/addresses.js';
import {ago, span, seconds} from '../lib/format.js';
import {now} from '../lib/time.js';
import {CommandList} from '../parts/commands.js';
import {chip, endpointLink, hostLink, hostState, networkLink, networkState, section} from '../parts/small.js';

const AGAIN_MS = 500;
const MOST = 50;

/** @param {import('../app.js').Context} context @returns {import('../app.js').View} */
export function searchView({world, api, commands, place, main}) {
  const heading = h('h1');
  const found = h('div', {'aria-live': 'polite'});
  const list = new CommandList();
  let asked = '';
  /** @type {any} */
  let answer = null;
  let sign = '';
  let timer = 0;
  let turn = 0;

  async function ask() {
    const mine = ++turn;
    const now = await find(api, asked).catch((error) => ({error}));
    if (mine !== turn) return;
    answer = now;
    view.update();
  }

  /** @param {URLSearchParams} query */
  function refined(query) {
    asked = (query.get('q') ?? '').trim();
    const field = /** @type {HTMLInputElement} */ (document.getElementById('query'));
    if (document.activeElement !== field) field.value = asked;
    answer = null;
    if (asked) ask();
  }

  const view = {
    title: 'Search',
    refined,
    update() {
      view.title = asked ? `Who has ${asked}` : 'Search';
      show(heading, asked, () => (asked ? `Who has ${asked}` : 'Search'));
      list.element.hidden = !asked;
      if (!asked) {
        show(found, '', () => h('p', {}, 'Give an address (10.1.0.7), a block (10.1.0.0/24), a port of a host (h1:8080/tcp), or a name in the field above.'));
        return;
      }
      list.update(commands.search(asked, kindOf(asked)));
      if (answer) showAnswer(found, answer, asked, world);
      // Something changed: who has it may have, too.
      const now = `${world.eventCount} ${world.link}`;
      if (answer && now !== sign && !timer) {
        timer = setTimeout(() => ((timer = 0), ask()), sign ? AGAIN_MS : 0);
        sign = now;
      }
    },
    close: () => {
      clearTimeout(timer);
      turn = -1;
    },
  };
  main.append(heading, found, list.element);
  refined(place.query);
  return view;
}

const PORT = /^([A-Za-z0-9][A-Za-z0-9_.-]*):([0-9]{1,5})(?:\/(tcp|udp))?$/;

/** @param {string} asked @returns {'address' | 'block' | 'port' | 'name'} */
export function kindOf(asked) {
  if (parseAddress(asked)) return 'address';
  if (parseBlock(asked)) return 'block';
  return PORT.test(asked) ? 'port' : 'name';
}

/** @param {import('../live/api.js').Api} api @param {string} asked */
async function find(api, asked) {
  const kind = kindOf(asked);
  if (kind === 'address') return {kind, ...(await api.get(`v1/ipam/addresses/${encodeURIComponent(asked)}`))};
  if (kind === 'block') return {kind, ...(await api.get(`v1/ipam/subnets/${asked.split('/').map(encodeURIComponent).join('/')}`))};
  const [, host, port, protocol] = PORT.exec(asked) ?? [];
  if (host) return {kind, items: (await api.get(`v1/hosts/${host}/ports`, {port, ...(protocol ? {protocol} : {})})).items};
  return {kind, endpoints: (await api.list('v1/endpoints', {name: asked})).items};
}

/** @param {HTMLElement} place @param {any} answer @param {string} asked @param {any} world */
function showAnswer(place, answer, asked, world) {
  const names = answer.kind === 'name' ? named(world, asked) : null;
  show(place, [answer, names?.sign, answer.error?.message], () => {
    if (answer.error) return h('p', {class: 'bad'}, `${answer.error.message}. ${answer.error.fix ?? ''}`);
    if (answer.kind === 'address') return address(answer);
    if (answer.kind === 'block') return block(answer);
    if (answer.kind === 'port') return ports(answer.items);
    return byName(answer.endpoints, names);
  });
}

/** @param {any} world @param {string} asked */
function named(world, asked) {
  const text = asked.toLowerCase();
  const networks = [...world.networks.values()].filter((one) => one.name.toLowerCase().includes(text) || one.id.startsWith(text)).slice(0, MOST);
  const hosts = [...world.hosts.values()].filter((one) => one.name.toLowerCase().includes(text)).slice(0, MOST);
  return {networks, hosts, sign: [networks.map((one) => [one.id, networkState(one)]), hosts.map((one) => [one.name, hostState(one)])]};
}

/** @param {any[]} endpoints @param {any} names */
function byName(endpoints, names) {
  if (!endpoints.length && !names.networks.length && !names.hosts.length) return h('p', {class: 'muted'}, 'Nothing has that name.');
  return [
    names.networks.length ? section('Networks', h('ul', {}, names.networks.map((/** @type {any} */ one) => h('li', {}, networkLink(one.name), ' ', chip(...networkState(one)))))) : null,
    names.hosts.length ? section('Hosts', h('ul', {}, names.hosts.map((/** @type {any} */ one) => h('li', {}, hostLink(one.name), ' ', chip(...hostState(one)))))) : null,
    endpoints.length ? section('Endpoints', h('ul', {}, endpoints.map((one) => h('li', {}, endpointLink(one), ' in ', networkLink(one.network_name), ' on ', hostLink(one.host), ': ', one.addresses.join(', '))))) : null,
  ];
}

/** @param {any[]} held */
function ports(held) {
  if (!held.length) return h('p', {class: 'muted'}, 'No endpoint has that port of the host.');
  return h('ul', {class: 'holders', role: 'list'}, held.map((one) => h('li', {}, chip('good', `${one.host_port}/${one.protocol}`),
    ' of host ', hostLink(one.host), ' leads to port ', one.port ?? '-', ' of ', endpointLink({...one, id: one.endpoint, name: one.endpoint_name}), ' in ', networkLink(one.network_name))));
}

/** @param {any} answer */
function address(answer) {
  if (!answer.holders.length) return h('p', {}, `No network contains ${answer.address}.`);
  return h('ul', {class: 'holders', role: 'list'}, answer.holders.map((/** @type {any} */ one) => h('li', {}, holder(one),
    one.block ? h('p', {class: 'muted'}, 'In the block ', h('code', {}, one.block.cidr), ' of host ', hostLink(one.block.host)) : null)));
}

/** @param {any} one */
function holder(one) {
  const where = [' in network ', networkLink(one.network_name)];
  if (one.endpoint) {
    return h('p', {}, chip('good', 'endpoint'), ' ', endpointLink(one.endpoint), where, ' on host ', hostLink(one.endpoint.host), ' for ', ago(one.since ?? one.endpoint.created_at));
  }
  if (one.kind === 'tombstone') {
    const left = one.until ? span(seconds(one.until) - now()) : '';
    return h('p', {}, chip('warn', 'cooling down'), where, left ? `, for another ${left}` : '', one.holder ? `; ${one.holder} had it` : '');
  }
  return h('p', {}, chip('none', one.kind), one.holder ? ` ${one.holder}` : '', where, one.since ? [' for ', ago(one.since)] : null);
}

/** @param {any} answer */
function block(answer) {
  if (!answer.holders.length) return h('p', {}, `Nobody has anything of ${answer.cidr}.`);
  const cell = (/** @type {any} */ one) => (one.kind === 'host' ? hostLink(one.holder) : one.kind === 'network' ? networkLink(one.holder) : one.holder);
  return h('div', {class: 'scroll'}, h('table', {}, h('caption', {class: 'unseen'}, `Who holds parts of ${answer.cidr}`),
    h('thead', {}, h('tr', {}, ['Block', 'Kind', 'Who', 'Detail'].map((title) => h('th', {scope: 'col'}, title)))),
    h('tbody', {}, answer.holders.map((/** @type {any} */ one) => h('tr', {}, h('th', {scope: 'row'}, link(one.cidr, `#/search?q=${encodeURIComponent(one.cidr)}`)), h('td', {}, one.kind), h('td', {}, cell(one)), h('td', {}, one.detail))))));
}

