// The page: which guest is shown, what is asked again when, and whether the daemon answers.

import { prepareActions } from './actions.js';
import { Failed, Stream, ask, pathOf } from './api.js';
import { prepareRecording } from './capture.js';
import { byId, clock, make, show, tick } from './dom.js';
import { chooseGuest, flush, framesCame, guestHappened, rateTick, refreshGuest, removed } from './guest.js';
import { filterGuests, showCluster, showGuests } from './list.js';

const SOON = 300;
const FRAMES = 2000;
const POLL = 10000;
/** Milliseconds: after an event, after frames, and without any. */

let guest = null;
let isGone = false;
let stream = null;
let lostSince = null;
let due = Infinity;
let timer = 0;
let again = false;

// -- the daemon

function say(words, kind = '') {
  show(byId('connection'), ...(words ? [make('span', { class: kind }, words)] : []));
}

const answers = {
  opened() {
    if (lostSince !== null) say(`The daemon is back since ${clock(Date.now())}. It did not answer from ${clock(lostSince)} on.`, 'good');
    else say('');
    lostSince = null;
    byId('guest').dataset.live = isGone ? '' : guest;
    refresh();
  },
  lost() {
    if (lostSince === null) lostSince = Date.now();
    say(`The daemon does not answer since ${clock(lostSince)}. Trying again …`, 'bad');
  },
  refused() {
    say('The daemon answers, but sends no live updates: too many pages or clients follow its events. Trying again …', 'bad');
  },
  /** The daemon answers, but not what was asked. Returns whether to give up. */
  ended(error) {
    if (error.status === 404) {
      setGone(true);
      return true;
    }
    if (error.status !== 401) return false;
    say('This browser is no longer signed in: run `vhostcomm web` where the daemon runs, and open the link that it prints.', 'bad');
    return true;
  },
  happened(kind, facts) {
    if (kind === 'frames') {
      framesCame(facts);
      refreshSoon(FRAMES);
    } else if (kind === 'removed') {
      setGone(true);
    } else {
      if (facts.guest === guest) guestHappened(kind, facts);
      refreshSoon(SOON);
    }
  },
};

/** Follows the events, and the frames of the guest that is shown. A page that nobody sees holds no connection. */
function follow() {
  stream?.close();
  stream = document.hidden ? null : new Stream(isGone ? null : guest, answers);
}

function setGone(gone) {
  if (gone) removed();
  if (gone === isGone) return;
  isGone = gone;
  follow();
}

// -- asking again

function refreshSoon(after) {
  if (due <= Date.now() + after) return;
  due = Date.now() + after;
  clearTimeout(timer);
  timer = setTimeout(() => {
    due = Infinity;
    refresh();
  }, after);
}

let running = false;

/** Asks for what is shown. A further call meanwhile is one more round afterwards. */
async function refresh() {
  again = true;
  if (running) return;
  running = true;
  while (again) {
    again = false;
    try {
      if (guest === null) {
        const { guests, cluster } = await ask('/guests');
        showGuests(guests);
        showCluster(cluster);
        askAddresses(guests);
      } else {
        await refreshGuest();
      }
      setGone(false);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      answers.ended(error);
    }
  }
  running = false;
}

const addressed = new Map();
const ASKED_AT_ONCE = 8;

/** Asks guests that are ready for their address, once for each of their starts, as `vhostcomm guests` does. */
async function askAddresses(guests) {
  const unknown = guests.filter((each) => each.state === 'ready' && !each.address && addressed.get(each.name) !== each.since);
  const now = unknown.slice(0, ASKED_AT_ONCE);
  for (const each of now) addressed.set(each.name, each.since);
  const asked = now.map((each) => ask(pathOf(each.name, 'call'), { command: 'get_information', timeout: 2 }));
  await Promise.allSettled(asked);
  if (now.length) refreshSoon(SOON);
}

// -- which guest

function route() {
  const [, name] = location.hash.match(/^#guest=([\w.-]+)$/) ?? [null, null];
  const first = stream === null && !document.hidden;
  guest = name;
  isGone = false;
  byId('guest').dataset.live = '';
  byId('list').hidden = guest !== null;
  byId('guest').hidden = guest === null;
  document.title = `${guest ?? 'Guests'} – vhostcomm`;
  chooseGuest(guest);
  follow();
  refresh();
  if (!first) byId(guest === null ? 'list-title' : 'guest-title').focus();
}

prepareActions(refresh);
prepareRecording(refresh);
byId('filter').addEventListener('input', filterGuests);
byId('pause').addEventListener('change', () => byId('pause').checked || flush());
addEventListener('hashchange', route);
document.addEventListener('visibilitychange', follow);
setInterval(tick, 1000);
setInterval(rateTick, 1000);
setInterval(() => document.hidden || refresh(), POLL);
route();
