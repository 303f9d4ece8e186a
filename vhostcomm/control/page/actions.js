// What a person can do to a guest: each asks first, and says what it does and who asked last.

import { Failed, ask, pathOf } from './api.js';
import { byId, make, moment, show } from './dom.js';

const SHUTDOWN_WAIT = 90;
const NOT_NOW = 409;

const ACTIONS = {
  shutdown: {
    label: 'Shut down',
    does: 'The guest is asked to power itself off, and the page waits for it. If vhostcomm run started its QEMU, stronger means '
      + 'follow within its grace period.',
    body: () => ({ wait: SHUTDOWN_WAIT }),
    done: (answer) => `${answer.gone ? 'gone' : 'asked'} after ${answer.seconds.toFixed(1)} s${answer.how ? `: ${answer.how}` : ''}`,
  },
  reboot: {
    label: 'Reboot',
    does: 'The guest is asked to reboot. Its connections end.',
    body: () => ({}),
    done: () => 'the guest has answered that it reboots',
  },
  resume: {
    label: 'Resume',
    does: 'The paused machine runs again. Remove the cause of the pause first, otherwise it stops again at once.',
    body: () => ({}),
    done: (answer) => (answer.resumed ? 'the machine runs again' : 'the machine was running already'),
    fits: (guest) => guest.state === 'paused',
  },
  freeze: {
    label: 'Freeze',
    does: 'The guest’s file systems are frozen, for a snapshot: nothing is written until the thaw.',
    body: () => ({ timeout: Number(byId('seconds').value) }),
    done: (answer) => `frozen until ${moment(answer.frozen_until)}`,
  },
  thaw: {
    label: 'Thaw',
    does: 'The guest’s file systems are thawed, and writes continue.',
    body: () => ({}),
    done: () => 'thawed',
  },
};

let current = null;
let chosen = '';

/** What was asked of a guest last, and by whom. */
function askedLast(guest) {
  const said = [];
  if (guest.stop) said.push(`Last asked: ${guest.stop.how}, ${moment(guest.stop.when)}, by ${guest.stop.by}.`);
  if (guest.thaw_owed) {
    said.push(`Frozen ${moment(guest.thaw_owed.since)}, by ${guest.thaw_owed.by}; thawed ${moment(guest.thaw_owed.until)} at the latest.`);
  }
  return said.join(' ');
}

export function showActions(guest) {
  current = guest;
  for (const button of byId('actions').children) {
    const { fits } = ACTIONS[button.dataset.action];
    button.disabled = !guest || guest.state === 'absent' || (fits ? !fits(guest) : false);
  }
  const none = guest?.state === 'absent' ? 'QEMU is not connected, so nothing can be asked. ' : '';
  show(byId('asked'), guest ? none + (askedLast(guest) || 'No stop and no freeze is pending.') : '');
  if (byId('confirm').open) showQuestion();
}

function showQuestion() {
  const { label, does } = ACTIONS[chosen];
  show(byId('confirm-title'), `${label} ${current?.name ?? ''}?`);
  show(byId('confirm-does'), does);
  show(byId('confirm-asked'), current ? askedLast(current) : 'This guest is no longer served.');
  byId('confirm-seconds').hidden = chosen !== 'freeze';
  byId('confirm-yes').disabled = !current;
  show(byId('confirm-yes'), label);
}

export function prepareActions(changed) {
  for (const [name, { label }] of Object.entries(ACTIONS)) {
    const button = make('button', { type: 'button', 'data-action': name }, label);
    button.addEventListener('click', () => {
      chosen = name;
      showQuestion();
      byId('confirm').showModal();
    });
    byId('actions').append(button);
  }
  byId('confirm-no').addEventListener('click', () => byId('confirm').close());
  byId('confirm-yes').addEventListener('click', async () => {
    if (chosen === 'freeze' && !byId('seconds').reportValidity()) return;
    const [name, action, body] = [current.name, chosen, ACTIONS[chosen].body()];
    byId('confirm').close();
    await perform(name, action, body);
    changed();
  });
}

async function perform(name, action, body) {
  const { label, done } = ACTIONS[action];
  const say = (words, kind) => {
    if (current === null || current.name === name) show(byId('outcome'), make('p', { class: kind }, `${label}: ${words}`));
  };
  say('asked, waiting for the answer …', '');
  try {
    say(done(await ask(pathOf(name, action), body)), 'good');
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    if (action === 'shutdown' && error.status === NOT_NOW && await wasStopped(name, say)) return;
    say(error.message, 'bad');
  }
}

/** Whether another client's shutdown came first; then this is no failure. */
async function wasStopped(name, say) {
  const guest = await ask(pathOf(name)).catch(() => null);
  if (guest?.state !== 'absent' || !guest.stop) return false;
  say(`gone already: ${guest.last_end}. ${askedLast(guest)}`, 'good');
  return true;
}
