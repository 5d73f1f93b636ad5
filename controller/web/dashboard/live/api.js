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
    /** called when a request is not answered because nobody is logged in (any more) */
    this.onUnknown = () => {};
  }

  /** @param {string} path below the base @param {Record<string, string>} [query] @returns {Promise<any>} */
  async get(path, query = {}) {
    const asked = new URLSearchParams(query).toString();
    return this.ask(path + (asked ? `?${asked}` : ''), {headers: {Accept: 'application/json'}});
  }

  /**
   * @param {string} method @param {string} path below the base @param {any} body null for none
   * @param {Record<string, string>} headers @returns {Promise<any>}
   */
  async send(method, path, body, headers) {
    const kind = body === null ? {} : {'Content-Type': 'application/json'};
    const sent = body === null ? null : JSON.stringify(body);
    return this.ask(path, {method, body: sent, headers: {Accept: 'application/json', ...kind, ...headers}});
  }

  /** @param {string} path with its query @param {RequestInit} request @returns {Promise<any>} */
  async ask(path, request) {
    let answer;
    try {
      answer = await fetch(this.base + path, {signal: AbortSignal.timeout(TIMEOUT_MS), cache: 'no-store', ...request});
      heard(answer.headers.get('date'));
      if (answer.status === 204) return null;
      const body = await answer.json();
      if (answer.ok) return body;
      if (answer.status === 401) this.onUnknown();
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
