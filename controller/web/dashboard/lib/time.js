/**
 * The controller's time, as well as its answers tell it: ages would be wrong by as much as this machine's clock is. A
 * clock that is right to within a few seconds is believed, because an answer tells whole seconds only.
 */

const BELIEVED_MS = 3000;

const clock = {ahead: 0};

/** @param {string | null} date of an answer */
export function heard(date) {
  const difference = Date.parse(date ?? '') - Date.now();
  if (Number.isFinite(difference)) clock.ahead = Math.abs(difference) < BELIEVED_MS ? 0 : difference;
}

/** In seconds. */
export const now = () => (Date.now() + clock.ahead) / 1000;
