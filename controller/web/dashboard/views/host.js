/** One host: is it alive, how far is it, what does it carry, what does it report. */

import {h, show} from '../lib/dom.js';
import {ago, labelTexts} from '../lib/format.js';
import {wayOut} from '../lib/ways.js';
import {History} from '../live/history.js';
import {problemsOf} from '../live/shapes.js';
import {ChangeList} from '../parts/changes.js';
import {CommandList, commandLine} from '../parts/commands.js';
import {endpointTable} from '../parts/endpoints.js';
import {chip, factList, hostState, joined, networkLink, section} from '../parts/small.js';

/** @param {import('../app.js').Context} context @param {string} name @returns {import('../app.js').View} */
export function hostView(context, name) {
  const {world, commands, main} = context;
  const endpoints = world.endpoints({host: name});
  const heading = h('h1', {}, name);
  const facts = h('div');
  const conditions = h('div');
  const table = endpointTable(context, {hasHost: false});
  const changes = new ChangeList(world);
  const isOfHost = (/** @type {any} */ event) => (event.after ?? event.before)?.host === name || event.key.split('/')[1] === name;
  const history = new History(world, {host: name}, isOfHost);
  const list = new CommandList();
  const body = h('div', {}, facts, section('Conditions', conditions), section('Endpoints', table.element), section('Recent changes', changes.element));
  main.append(heading, body, list.element);
  return {
    title: name,
    update() {
      const host = world.hosts.get(name);
      list.update([...commands.host(name), {what: 'Is the machine well?', cli: commands.cli('doctor', name), curl: commands.curl(`v1/hosts/${encodeURIComponent(name)}/doctor`)}]);
      const isMissing = world.isLoaded && !host;
      body.hidden = !host;
      show(heading, [isMissing], () => [name, isMissing ? h('span', {class: 'muted'}, ' is not there (any more)') : null]);
      if (!host) return;
      showFacts(facts, host);
      showConditions(conditions, host, commands);
      if (endpoints.isLoaded) table.update([...endpoints.items.values()]);
      changes.update(history.changes());
    },
    close: () => endpoints.close(),
  };
}

/** @param {HTMLElement} place @param {any} host */
function showFacts(place, host) {
  const {last_seen: seen, ...rest} = host;
  show(place, [rest, host.alive ? '' : seen], () => factList([
    ['State', chip(...hostState(host))],
    ['Last seen', host.alive ? 'now' : [ago(seen, 'never'), seen ? ' ago' : '']],
    ['Down', host.down_since ? ['for ', ago(host.down_since)] : 'no'],
    ['Behind', `${host.lag_revisions} revisions`],
    ['Underlay', h('code', {}, host.underlay)],
    ['MTU', host.mtu],
    ['Endpoints', host.endpoints],
    ['Networks', host.networks.length ? joined(host.networks.map(networkLink)) : 'none'],
    ['Can', labelTexts(Object.fromEntries(host.abilities.map((/** @type {string} */ one) => [one, '']))).join(', ') || '-'],
    ['Kernel', host.kernel || '-'],
    ['kvnet', host.kvnet_version || '-'],
    ['Run', h('code', {}, host.incarnation || '-')],
    ['Version', host.version],
  ]));
}

/** @param {HTMLElement} place @param {any} host @param {import('../lib/commands.js').Commands} commands */
function showConditions(place, host, commands) {
  const told = host.status?.conditions ?? problemsOf(host).map((one) => ({...one, type: 'problem', status: 'true'}));
  show(place, told, () => told.length
    ? h('ul', {class: 'problems', role: 'list'}, told.map((/** @type {any} */ one) => condition(one, host.name, commands)))
    : h('p', {class: 'muted'}, 'It reports none.'));
}

/** @param {any} one @param {string} host @param {import('../lib/commands.js').Commands} commands */
function condition(one, host, commands) {
  const isWell = one.type !== 'problem' && one.status === 'true';
  const level = isWell ? 'good' : one.status === 'unknown' ? 'none' : 'bad';
  const way = level === 'bad' ? wayOut(one.reason, host) : null;
  return h('li', {class: level}, h('div', {}, chip(level, `${one.type}: ${one.status}`), ` ${one.reason}`, one.since ? [' for ', ago(one.since)] : null),
    one.detail ? h('p', {class: 'detail'}, one.detail) : null,
    way && h('p', {class: 'way'}, way.text), way && commandLine(commands.cli(...way.words), `Copy the command for ${one.reason}`, 'way'));
}
