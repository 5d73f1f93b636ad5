/** What is shown to a browser that is not known: a field for a token, or why none would help. */

import {h} from '../lib/dom.js';

/**
 * @param {HTMLElement} main
 * @param {import('../live/session.js').Session} session
 * @param {import('../live/api.js').ApiError} refusal
 */
export function showLogin(main, session, refusal) {
  document.body.classList.add('locked');
  document.title = 'Log in - kvnet';
  main.replaceChildren(refusal.status === 401 ? form(session) : closed(refusal));
  main.querySelector('input')?.focus();
}

/** @param {import('../live/session.js').Session} session */
function form(session) {
  const field = /** @type {HTMLInputElement} */ (
    h('input', {
      id: 'token', type: 'password', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false',
      required: true, maxlength: 8192, 'aria-describedby': 'login-told',
    })
  );
  const button = /** @type {HTMLButtonElement} */ (h('button', {}, 'Log in'));
  const told = h('p', {id: 'login-told', role: 'alert'});

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    const token = field.value.trim();
    field.value = '';
    if (!token || button.disabled) return;
    button.disabled = true;
    told.replaceChildren();
    try {
      await session.logIn(token);
    } catch (error) {
      const {status, message, fix} = /** @type {any} */ (error);
      told.replaceChildren(status === 401 ? 'This token is not good here: it is unknown, removed or expired.' : `${message}. ${fix}`);
      button.disabled = false;
      field.focus();
    }
  }

  return h('section', {class: 'login', 'aria-labelledby': 'login-title'},
    h('h1', {id: 'login-title'}, 'Log in'),
    h('form', {on: {submit}}, h('label', {for: 'token'}, 'Token'), field, button),
    told,
    h('p', {class: 'muted'}, 'An admin makes one: ', h('code', {}, 'kvnet token create NAME --role viewer'),
      '. It is sent once, and not kept here; you stay logged in for 12 hours, or until the token ends.'));
}

/** @param {import('../live/api.js').ApiError} refusal */
function closed(refusal) {
  return h('section', {class: 'login'}, h('h1', {}, 'Not from here'), h('p', {}, refusal.message), h('p', {class: 'muted'}, refusal.fix));
}

/**
 * Who looks, in the page's corner; nothing where nobody is asked.
 * @param {HTMLElement} place
 * @param {import('../live/session.js').Session} session
 */
export function showWho(place, session) {
  const who = session.who;
  if (!who || who.via === 'open') return;
  const out = h('button', {id: 'logout', type: 'button', on: {click: () => session.logOut().catch(() => session.again())}}, 'Log out');
  place.replaceChildren(h('span', {class: 'name', title: `role ${who.role}`}, `${who.name} (${who.role})`), who.via === 'cookie' ? out : '');
  place.hidden = false;
}
