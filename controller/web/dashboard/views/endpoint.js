/** One endpoint: its addresses, who asked for it, since when, and where it is applied. */

import {h, show} from '../lib/dom.js';
import {ago} from '../lib/format.js';
import {History} from '../live/history.js';
import {ChangeList} from '../parts/changes.js';
import {CommandList} from '../parts/commands.js';
import {portText} from '../parts/endpoints.js';
import {addressLink, chip, endpointLink, endpointState, factList, hostLink, joined, labelList, networkLink, section} from '../parts/small.js';

/** @param {import('../app.js').Context} context @param {string} network @param {string} id @returns {import('../app.js').View} */
export function endpointView({world, commands, main}, network, id) {
  const endpoints = world.endpoints({network});
  const heading = h('h1', {}, id);
  const facts = h('div');
  const applied = h('div');
  const trace = h('div');
  const changes = new ChangeList(world, {hasNetwork: false});
  let subject = id;
  const history = new History(world, {network, endpoint: id}, (event) => event.key.startsWith('endpoints/') && event.key.endsWith(`/${subject}`));
  const list = new CommandList();
  const others = new CommandList('On the command line');
  const body = h('div', {}, facts, section('Applied', applied), section('The way to another endpoint', trace, others.element), section('Changes', changes.element));
  main.append(h('p', {class: 'path'}, networkLink(network), ' / endpoint'), heading, body, list.element);
  const view = {
    title: id,
    update() {
      list.update(commands.endpoint(network, id));
      const all = [...endpoints.items.values()];
      const found = all.find((one) => one.id === id) ?? all.find((one) => one.name === id) ?? null;
      const isMissing = endpoints.isLoaded && !found;
      body.hidden = !found;
      const name = found ? found.name || found.id : id;
      view.title = `${name} - ${network}`;
      show(heading, [name, isMissing], () => [name, isMissing ? h('span', {class: 'muted'}, ' is not there (any more)') : null]);
      changes.update(history.changes());
      if (!found) return;
      subject = found.id;
      showFacts(facts, found, history.changes().findLast((event) => event.kind === 'endpoint.created'));
      showApplied(applied, found);
      showTrace(trace, others, found, all, commands);
    },
    close: () => endpoints.close(),
  };
  return view;
}

/** @param {HTMLElement} place @param {any} one @param {any} made the event of its creation, if it is still kept */
function showFacts(place, one, made) {
  show(place, [one, made?.revision], () => factList([
    ['State', chip(...endpointState(one))],
    ['Id', h('code', {}, one.id)],
    ['Network', networkLink(one.network_name)],
    ['Host', hostLink(one.host)],
    ['Addresses', joined(one.addresses.map(addressLink))],
    ['MAC', h('code', {}, one.mac)],
    ['Asked for by', made ? [made.actor, made.source ? ` from ${made.source}` : '', made.request_id ? [' (request ', h('code', {}, made.request_id), ')'] : ''].flat(2) : 'not kept any more'],
    ['Since', [ago(one.created_at), ' ago (', one.created_at, ')']],
    ['Host name', one.hostname || '-'],
    ['Aliases', one.aliases.join(', ') || 'none'],
    ['Ports', one.ports.length ? joined(one.ports.map(portText)) : 'none'],
    ['Gateway priority', one.gateway_priority],
    ['Labels', labelList(one.labels)],
    ['Version', one.version],
  ]));
}

/** @param {HTMLElement} place @param {any} one */
function showApplied(place, one) {
  const {converged, waiting_for: waiting, away = []} = one.applied;
  show(place, [one.applied, one.status, one.isFresh], () => [
    h('p', {}, converged ? chip('good', 'every living host of the network has it') : chip('warn', waiting.length ? 'not everywhere yet' : 'waiting for the first word'),
      waiting.length ? [' waiting for ', joined(waiting.map(hostLink))].flat() : null,
      away.length ? ['; down, and so not waited for: ', joined(away.map(hostLink))].flat() : null),
    h('ul', {}, (one.status?.conditions ?? []).map((/** @type {any} */ c) =>
      h('li', {}, chip(c.status === 'unknown' ? 'none' : (c.status === 'true') === (c.type !== 'problem') ? 'good' : 'bad', `${c.type}: ${c.status}`), ` ${c.reason}`, c.detail ? `: ${c.detail}` : '', c.since ? [' for ', ago(c.since)] : null))),
  ]);
}

/** @param {HTMLElement} place @param {CommandList} list @param {any} one @param {any[]} all @param {import('../lib/commands.js').Commands} commands */
function showTrace(place, list, one, all, commands) {
  const other = all.find((each) => each.id !== one.id && each.host !== one.host) ?? all.find((each) => each.id !== one.id);
  show(place, [other?.id], () => h('p', {}, other ? ['For example to ', endpointLink(other), '; any other takes its place.'] : 'There is no other endpoint in this network.'));
  list.element.hidden = !other;
  if (other) list.update([{what: 'Hop by hop, wanted and in the kernel', cli: commands.cli('trace', one.id, other.id), curl: commands.post('v1/trace', {from: one.id, to: other.id})}]);
}
