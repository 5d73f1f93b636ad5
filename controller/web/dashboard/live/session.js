/**
 * Who this browser is to the controller: asked before anything is shown, given up by logging out. The token goes into
 * one request's body and nowhere else; what stays is a cookie that no script can read. All tabs of a browser follow.
 */

import {ApiError} from './api.js';

const UNKNOWN = 401;
const NOT_FROM_HERE = 403;
// A page of another site cannot send this; with the cookie alone nothing is changed.
const OWN_PAGE = {'x-kvnet-csrf': '1'};

/** @typedef {{name: string, role: string, via: string}} Who */

export class Session {
  /** @param {import('./api.js').Api} api */
  constructor(api) {
    this.api = api;
    /** @type {Who | null} */
    this.who = null;
    this.onLeave = () => {};
    this.channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel('kvnet-session');
    if (this.channel) this.channel.onmessage = () => location.reload();
  }

  /** @returns {Promise<ApiError | null>} why this browser may not look; null if it may, or nobody can say now */
  async refusal() {
    try {
      this.who = await this.api.get('v1/whoami');
    } catch (error) {
      if (error instanceof ApiError && (error.status === UNKNOWN || error.status === NOT_FROM_HERE)) return error;
    }
    return null;
  }

  /** @param {string} token @returns {Promise<void>} it throws an ApiError if that is none */
  async logIn(token) {
    await this.api.send('POST', 'v1/login', {token}, OWN_PAGE);
    this.again();
  }

  async logOut() {
    await this.api.send('DELETE', 'v1/login', null, OWN_PAGE);
    this.again();
  }

  /** Nothing of what was shown, or known, outlives a change of who looks. */
  again() {
    this.onLeave();
    this.channel?.postMessage('changed');
    location.reload();
  }
}
