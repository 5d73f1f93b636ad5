/** The overview: what is wrong, with the way out, before how much of everything there is. */

import {h, link, show} from '../lib/dom.js';
import {ago, grouped, plural} from '../lib/format.js';
import {wayOut} from '../lib/ways.js';
import {ChangeList} from '../parts/changes.js';
import {CommandList, commandLine} from '../parts/commands.js';
import {findings} from '../parts/findings.js';
import {bar, chip, section} from '../parts/small.js';
import {History} from '../live/history.js';

const MOST_SHOWN = 50;

/** @param {import('../app.js').Context} context @returns {import('../app.js').View} */
export function overviewView({world, commands, main}) {
  const problems = h('div', {id: 'problems'});
  const tiles = h('div', {class: 'tiles'});
  const pools = h('div');
  const changes = new ChangeList(world, {limit: 10});
  const history = new History(world, {}, () => true);
  const list = new CommandList();
  main.append(h('h1', {}, 'Overview'), section('Problems', problems), tiles, section('Pools', pools),
    section('Recent changes', changes.element, h('p', {}, link('All events', '#/events'))), list.element);
  return {
    title: 'Overview',
    update() {
      if (world.isLoaded) showProblems(problems, world, commands);
      showTiles(tiles, world);
      showPools(pools, world.pools);
      changes.update(history.changes());
      list.update(commands.overview());
    },
  };
}

/** @param {HTMLElement} place @param {any} world @param {import('../lib/commands.js').Commands} commands */
function showProblems(place, world, commands) {
  const found = findings(world);
  show(place, found, () => {
    if (!found.length) return h('p', {class: 'fine'}, chip('good', 'Nothing is wrong'), ' that the controller knows of.');
    const more = found.length - MOST_SHOWN;
    return [
      h('ul', {class: 'problems', role: 'list'}, found.slice(0, MOST_SHOWN).map((one) => problem(one, commands))),
      more > 0 && h('p', {class: 'muted'}, `and ${plural(more, 'more problem')}; see `, link('hosts', '#/hosts'), ' and ', link('networks', '#/networks')),
    ];
  });
}

/** @param {import('../parts/findings.js').Finding} one @param {import('../lib/commands.js').Commands} commands */
function problem(one, commands) {
  const way = wayOut(one.reason, one.host || (one.noun === 'network' ? one.name : ''), one.noun);
  return h('li', {class: one.level},
    h('div', {}, chip(one.level, one.reason), ' ', h('a', {href: one.href, 'data-focus': one.key}, `${one.noun} ${one.name}`),
      one.since ? [' for ', ago(one.since)] : null),
    h('p', {class: 'detail'}, one.detail),
    h('p', {class: 'way'}, way.text),
    commandLine(commands.cli(...way.words), `Copy the command for ${one.noun} ${one.name}`, 'way'));
}

/** @param {HTMLElement} place @param {any} world */
function showTiles(place, world) {
  const status = world.status;
  const hosts = [...world.hosts.values()];
  const alive = hosts.filter((one) => one.alive).length;
  const endpoints = world.isLoaded ? [...world.networks.values()].reduce((sum, one) => sum + one.endpoints, 0) : 0;
  const figures = [world.isLoaded, world.networks.size, endpoints, hosts.length, alive, status?.store, status?.leader, world.revision];
  show(place, figures, () => world.isLoaded && [
    tile('Networks', grouped(world.networks.size), '#/networks'),
    tile('Endpoints', grouped(endpoints), '#/networks'),
    tile('Hosts alive', `${grouped(alive)} of ${grouped(hosts.length)}`, '#/hosts'),
    tile('Upkeep by', status?.leader ?? 'nobody'),
    tile('Store', status?.store ?? '-'),
    tile('Revision', String(world.revision), '#/events'),
  ]);
}

/** @param {string} title @param {string} value @param {string} [href] */
const tile = (title, value, href) =>
  h(href ? 'a' : 'div', {class: 'tile', href, 'data-focus': title}, h('span', {class: 'muted'}, title), h('strong', {}, value));

/** @param {HTMLElement} place @param {any[]} pools */
function showPools(place, pools) {
  show(place, pools, () => pools.length
    ? h('div', {class: 'scroll'}, h('table', {}, h('caption', {class: 'unseen'}, 'Pools'),
      h('thead', {}, h('tr', {}, ['Name', 'Block', 'Subnets', 'Largest free'].map((title) => h('th', {scope: 'col'}, title)))),
      h('tbody', {}, pools.map((one) => h('tr', {},
        h('th', {scope: 'row'}, one.name), h('td', {}, one.cidr), h('td', {}, bar(one.subnets_used, one.subnets_total)), h('td', {}, one.largest_free ?? 'none'))))))
    : h('p', {class: 'muted'}, 'There are none.'));
}

