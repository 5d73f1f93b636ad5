/** One network: what it is, who is in it, who has which address, how far each host is, and what changed lately. */

import {h, show} from '../lib/dom.js';
import {ago} from '../lib/format.js';
import {History} from '../live/history.js';
import {problemsOf, conditionOf} from '../live/shapes.js';
import {ChangeList} from '../parts/changes.js';
import {CommandList} from '../parts/commands.js';
import {ConvergenceTable} from '../parts/convergence.js';
import {endpointTable} from '../parts/endpoints.js';
import {bar, chip, factList, joined, labelList, networkLink, networkState, section} from '../parts/small.js';
import {AddressSection} from '../parts/addresssection.js';
import {GraphSection} from '../parts/graphsection.js';

/** @param {import('../app.js').Context} context @param {string} name @returns {import('../app.js').View} */
export function networkView(context, name) {
  const {world, commands, main} = context;
  const endpoints = world.endpoints({network: name});
  const heading = h('h1', {}, name);
  const facts = h('div');
  const problems = h('div');
  const graph = new GraphSection(context);
  const addresses = new AddressSection(context);
  const table = endpointTable(context, {hasHost: true});
  const convergence = new ConvergenceTable(world);
  const changes = new ChangeList(world, {hasNetwork: false});
  const history = new History(world, {network: name}, (event) => event.network === world.networkNamed(name)?.id);
  const list = new CommandList();
  const body = h('div', {}, problems, facts,
    h('div', {class: 'columns'}, section('Hosts and endpoints', graph.element), section('Addresses', addresses.element)),
    section('Endpoints', table.element), section('Convergence', convergence.element), section('Recent changes', changes.element));
  main.append(heading, body, list.element);
  return {
    title: name,
    update() {
      const network = world.networkNamed(name);
      list.update(commands.network(name));
      const isMissing = world.isLoaded && !network;
      body.hidden = !network;
      show(heading, [name, isMissing], () => [name, isMissing ? h('span', {class: 'muted'}, ' is not there (any more)') : null]);
      if (!network) return;
      showFacts(facts, network);
      showProblems(problems, network);
      graph.update(network, endpoints);
      addresses.update(network, endpoints);
      if (endpoints.isLoaded) table.update([...endpoints.items.values()]);
      convergence.update(network);
      changes.update(history.changes());
    },
    close() {
      endpoints.close();
      graph.close();
      addresses.close();
      convergence.close();
    },
  };
}

/** @param {HTMLElement} place @param {any} network */
function showFacts(place, network) {
  const {version, used, endpoints, status, hosts, ...rest} = network;
  show(place, [version, used, endpoints, hosts, network.subnets, network.peers, networkState(network), rest.state], () => factList([
    ['State', chip(...networkState(network))],
    ['Id', h('code', {}, network.id)],
    ['Driver', network.driver + (network.vni ? `, VNI ${network.vni}` : '')],
    ['Subnets', network.subnets.map((/** @type {any} */ one) => h('div', {class: 'subnet'}, h('code', {}, one.cidr), ' ', bar(one.used, one.size)))],
    ['Gateways', joined(network.subnets.filter((/** @type {any} */ one) => one.gateway).map((/** @type {any} */ one) => h('code', {}, one.gateway)))],
    ['Endpoints', `${endpoints} on ${hosts.length === 1 ? '1 host' : `${hosts.length} hosts`}`],
    ['Peers', network.peers.length ? joined(network.peers.map((/** @type {any} */ one) => networkLink(one.name))) : 'none'],
    ['Kind', [network.internal ? 'internal' : 'with a way out', network.ipv6 ? 'IPv6' : null, network.icc ? null : 'endpoints apart'].filter(Boolean).join(', ')],
    ['MTU', network.mtu ?? 'automatic'],
    ['Labels', labelList(network.labels)],
    ['Options', labelList(network.options)],
    ['Made', [ago(network.created_at), ' ago']],
    ['Version', version],
  ]));
}

/** @param {HTMLElement} place @param {any} network */
function showProblems(place, network) {
  const told = problemsOf(network);
  const ready = conditionOf(network, 'ready');
  const isAmiss = told.length || ready?.status === 'false';
  show(place, [told, ready], () => isAmiss && h('ul', {class: 'problems', role: 'list'},
    ready?.status === 'false' && !told.length ? h('li', {class: 'warn'}, chip('warn', ready.reason), ` ${ready.detail}`) : null,
    told.map((one) => h('li', {class: 'bad'}, chip('bad', one.reason), one.host ? ` on ${one.host}: ` : ' ', one.detail, one.since ? [' for ', ago(one.since)] : null))));
}
