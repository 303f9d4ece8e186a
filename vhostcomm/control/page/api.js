// The control surface's own API, which is described in /openapi.json.

/** An answer that is an error, with what failed, why, and the remedy; status 0 without an answer. */
export class Failed extends Error {
  constructor(status, { what, why, remedy }) {
    super(`${what}: ${why}; ${remedy}`);
    this.status = status;
  }
}

const NO_ANSWER = { what: 'no answer', why: 'the daemon does not answer', remedy: 'check whether it runs' };

/** Sends GET, or POST with a body. */
export async function ask(path, body) {
  const options = body === undefined ? {}
    : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  let response;
  let answer;
  try {
    response = await fetch(path, options);
    answer = await response.json();
  } catch {
    throw new Failed(0, NO_ANSWER);
  }
  if (!response.ok) throw new Failed(response.status, answer.error ?? NO_ANSWER);
  return answer;
}

export const pathOf = (name, verb = '') => `/guests/${encodeURIComponent(name)}${verb && `/${verb}`}`;

const RECONNECT_DELAY = 1000;

/** Follows the events, with the frames of one guest; again and again, until it is closed. */
export class Stream {
  constructor(guest, on) {
    this.url = guest === null ? '/events' : `/events?frames=${encodeURIComponent(guest)}`;
    this.probe = guest === null ? '/guests' : pathOf(guest);
    this.on = on;
    this.closed = false;
    this.open();
  }

  open() {
    this.source = new EventSource(this.url);
    this.source.onopen = () => this.on.opened();
    this.source.onerror = () => this.failed();
    const kinds = ['connected', 'ready', 'silent', 'paused', 'resumed', 'rebooted', 'stopping', 'frozen', 'thawed', 'gone',
      'lost', 'frames', 'removed'];
    for (const kind of kinds) {
      this.source.addEventListener(kind, (event) => this.on.happened(kind, JSON.parse(event.data)));
    }
  }

  async failed() {
    if (this.source.readyState !== EventSource.CLOSED) { // the browser tries again by itself
      this.on.lost();
      return;
    }
    try {
      await ask(this.probe);
      this.on.refused();
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (error.status && this.on.ended(error)) return;
      this.on.lost();
    }
    if (!this.closed) this.timer = setTimeout(() => this.open(), RECONNECT_DELAY);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.source.close();
    this.on = { opened() {}, lost() {}, refused() {}, ended: () => true, happened() {} };
  }
}
