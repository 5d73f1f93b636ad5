/**
 * Asks again for objects that changed: the first at once, a flood of them together, never faster than a pause apart.
 * Many changes are answered by one list, so that a thousand changes cost a few requests.
 */

const PAUSE_MS = 250;
const LAZY_MS = 600;
const ONE_BY_ONE = 12;

export class Refresher {
  /** @param {import('./api.js').Api} api @param {any} world */
  constructor(api, world) {
    this.api = api;
    this.world = world;
    /** @type {Set<string>} */
    this.networks = new Set();
    /** @type {Set<string>} */
    this.hosts = new Set();
    this.hasPools = false;
    this.isBusy = false;
    this.timer = 0;
    this.due = Infinity;
    this.last = 0;
  }

  clear() {
    this.networks = new Set();
    this.hosts = new Set();
    this.hasPools = false;
  }

  /** @param {string} id @param {boolean} [isLazy] its status will be told, so there is time */
  network(id, isLazy = false) {
    this.networks.add(id);
    this.ring(isLazy);
  }

  /** @param {string} name @param {boolean} [isLazy] */
  host(name, isLazy = false) {
    this.hosts.add(name);
    this.ring(isLazy);
  }

  pools() {
    this.hasPools = true;
    this.ring(false);
  }

  /** @param {boolean} isLazy */
  ring(isLazy) {
    const now = performance.now();
    const due = Math.max(now + (isLazy ? LAZY_MS : 0), this.last + PAUSE_MS);
    if (this.isBusy || due >= this.due) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => this.run(), due - now);
  }

  async run() {
    this.isBusy = true;
    this.due = Infinity;
    this.last = performance.now();
    const {networks, hosts, hasPools} = this;
    this.clear();
    try {
      await Promise.all([
        this.read('v1/networks', networks, this.world.networks, 'id'),
        this.read('v1/hosts', hosts, this.world.hosts, 'name'),
        hasPools && this.api.list('v1/pools').then((list) => (this.world.pools = list.items)),
      ]);
    } catch {
      // Not answered: the stream breaks too, and everything is listed again when it is back.
    }
    this.isBusy = false;
    this.world.changed();
    if (this.networks.size || this.hosts.size || this.hasPools) this.ring(false);
  }

  /** @param {string} path @param {Set<string>} wanted @param {Map<string, any>} known @param {string} key */
  async read(path, wanted, known, key) {
    if (wanted.size > ONE_BY_ONE) {
      const list = await this.api.list(path);
      const found = new Map(list.items.map((one) => [one[key], one]));
      for (const name of wanted) if (!found.has(name)) known.delete(name);
      for (const [name, one] of found) known.set(name, one);
      return;
    }
    await Promise.all([...wanted].map((name) => this.readOne(path, name, known, key)));
  }

  /** @param {string} path @param {string} name @param {Map<string, any>} known @param {string} key */
  async readOne(path, name, known, key) {
    try {
      const one = await this.api.get(`${path}/${encodeURIComponent(name)}`);
      if (!(known.get(one[key])?.version > one.version)) known.set(one[key], one);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 404) throw error;
      known.delete(name);
    }
  }
}
