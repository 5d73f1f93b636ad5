/**
 * Asks the HTTP API: bounded in time, and every failure is one kind of error that says what and what now.
 * @typedef {{items: any[], revision: number}} List
 */

import {heard} from '../lib/time.js';

const TIMEOUT_MS = 10000;
const PAGE = 500;
const MAX_PAGES = 200;

/** What a request met: the problem of RFC 9457, or that nobody answered. */
export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} detail @param {string} fix */
  constructor(status, code, detail, fix) {
    super(detail);
    this.status = status;
    this.code = code;
    this.fix = fix;
  }
}

export class Api {
  /** @param {string} base with a slash at its end */
  constructor(base) {
    this.base = base;
  }

  /** @param {string} path below the base @param {Record<string, string>} [query] @returns {Promise<any>} */
  async get(path, query = {}) {
    const asked = new URLSearchParams(query).toString();
    const stop = AbortSignal.timeout(TIMEOUT_MS);
    let answer;
    try {
      answer = await fetch(this.base + path + (asked ? `?${asked}` : ''), {
        signal: stop,
        headers: {Accept: 'application/json'},
        cache: 'no-store',
      });
      heard(answer.headers.get('date'));
      const body = await answer.json();
      if (answer.ok) return body;
      throw new ApiError(answer.status, body.code ?? '', body.detail ?? answer.statusText, body.fix ?? '');
    } catch (error) {
      if (error instanceof ApiError) throw error;
      if (answer) throw new ApiError(answer.status, 'unreadable', 'the answer cannot be read', 'try again');
      throw new ApiError(0, 'unreachable', 'the controller does not answer', 'is it running?');
    }
  }

  /**
   * All pages of a list. The revision is that of the first: what changed while it was read is told by the stream.
   * @param {string} path @param {Record<string, string>} [query] @returns {Promise<List>}
   */
  async list(path, query = {}) {
    const items = [];
    let revision = 0;
    let cursor = '';
    for (let page = 0; page < MAX_PAGES; page++) {
      const answer = await this.get(path, {...query, limit: String(PAGE), ...(cursor ? {cursor} : {})});
      items.push(...answer.items);
      if (page === 0) revision = answer.revision;
      cursor = answer.next_cursor;
      if (!cursor) break;
    }
    return {items, revision};
  }
}
