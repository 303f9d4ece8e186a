// One guest: its state, its identity, what it asks and answers, and what to paste for it.

import { showActions } from './actions.js';
import { Failed, ask, pathOf } from './api.js';
import { chooseRecording, showRecording } from './capture.js';
import { byId, clock, make, show, since, table } from './dom.js';
import { linkOf, servedOf, stateOf } from './list.js';

const KEPT = 200;
const SECONDS = 60;
const SVG = 'http://www.w3.org/2000/svg';

const VERBS = { question: 'asks', answer: 'answers', notice: 'notifies', skipped: 'sent bytes outside any frame' };

let name = null;
let uptime = null;
let asked = '';
let rates = [];
let second = null;
let held = [];

/** Begins to show another guest, or none. */
export function chooseGuest(chosen) {
  name = chosen;
  [uptime, asked, rates, second, held] = [null, '', [], null, []];
  for (const id of ['gone', 'problem', 'about', 'served', 'timeline', 'calls', 'counts', 'snippets', 'outcome', 'guest-state', 'left-out']) {
    byId(id).replaceChildren();
  }
  byId('pause').checked = false;
  showActions(null);
  chooseRecording(name);
  if (name === null) return;
  show(byId('guest-title'), name);
  drawRates();
  showSnippets(name);
}

export function removed() {
  show(byId('gone'), make('p', {}, 'This guest is no longer served: it was removed from the configuration or the watched directory. The page shows its last state.'));
  showActions(null);
}

/** Asks for the guest that is shown. Throws what `ask` throws: a guest that is no longer served has status 404. */
export async function refreshGuest() {
  const guest = await ask(pathOf(name));
  if (guest.name !== name) return;
  byId('gone').replaceChildren();
  showGuest(guest);
  showActions(guest);
  showRecording(guest);
  askUptime(guest);
}

function showGuest(guest) {
  show(byId('guest-state'), stateOf(guest), ' for ', since(guest.since));
  show(byId('problem'), ...(guest.problem ? [make('p', {}, guest.problem)] : []));
  const about = [
    ['DSM', linkOf(guest) || 'no address yet'],
    ['Uptime', ...(uptime ? [`${uptime.text} (inferred), asked `, since(uptime.when, ' ago')] : ['not known'])],
    ['Last frame', guest.last_frame ? since(guest.last_frame, ' ago') : 'none'],
    ['Socket', guest.sock],
    ['Connections', String(guest.connections)],
    ['Starts seen', String(guest.starts_seen)],
    ['Last end', guest.last_end || 'none'],
  ];
  show(byId('about'), ...about.flatMap(([key, ...value]) => [make('dt', {}, key), make('dd', {}, ...value)]));
  const served = Object.entries(guest.answered).map(([command, each]) => [command, each.answer || '(nothing)', clock(each.when)]);
  const { serial, uuid } = guest.identity.guest;
  show(byId('served'),
    make('p', {}, 'Serial number served: ', servedOf(guest), make('br'), `Configured: ${serial}, UUID ${uuid}`),
    table(['Question', 'Answer', 'Last asked'], served, 'The guest has asked nothing yet.'));
  show(byId('calls'), table(['Call', 'Outcome', 'Times'],
    guest.calls.map((each) => [each.command, each.outcome, String(each.count)]), 'The guest has received no calls yet.'));
  const counts = [...Object.entries(guest.requests), ...Object.entries(guest.counts).map(([key, value]) => [key.replaceAll('_', ' '), value])];
  show(byId('counts'), table(['Counted', 'Times'], counts.map(([key, value]) => [key, String(value)]), ''));
}

/** Asks for the guest's own uptime, once for each time that it is ready. */
async function askUptime(guest) {
  if (guest.state !== 'ready' || asked === guest.since) return;
  asked = guest.since;
  uptime = null;
  try {
    if (!guest.address) await ask(pathOf(guest.name, 'call'), { command: 'get_information', timeout: 2 });
    const answer = await ask(pathOf(guest.name, 'call'), { command: 'get_uptime', timeout: 2 });
    if (guest.name !== name) return;
    uptime = { text: answer.answer.text, when: new Date().toISOString() };
    await refreshGuest();
  } catch (error) {
    if (!(error instanceof Failed)) throw error; // a healthy guest may not know it
  }
}

async function showSnippets(of) {
  let found;
  try {
    found = await ask(pathOf(of, 'snippets'));
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    return;
  }
  if (of !== name) return;
  show(byId('snippets'), ...found.snippets.map(snippet), make('p', {}, 'For Proxmox VE, hookscripts and systemd: vhostcomm snippet --help'));
}

function snippet({ kind, text, remarks }) {
  const block = make('pre', { tabindex: '0', role: 'region', 'aria-label': `Configuration for ${kind}` }, text);
  const said = make('span', { role: 'status' });
  const button = make('button', { type: 'button' }, `Copy for ${kind}`);
  button.addEventListener('click', async () => show(said, await copied(block) ? ' Copied.' : ' Selected: press Ctrl+C.'));
  const notes = make('ul', {}, ...remarks.map((each) => make('li', {}, each)));
  return make('details', {}, make('summary', {}, kind), ...(text ? [block, button, said] : []), notes);
}

async function copied(block) {
  try {
    await navigator.clipboard.writeText(block.textContent);
    return true;
  } catch { // only pages with encryption, or of this machine, may write to the clipboard
    getSelection().selectAllChildren(block);
    return false;
  }
}

// -- what happens

/** Adds an event of the guest to its timeline. */
export function guestHappened(kind, facts) {
  const what = [facts.why, facts.stop ? `${facts.stop.how}, by ${facts.stop.by}` : null].filter(Boolean).join('; ');
  add([[clock(facts.when ?? Date.now()), make('strong', {}, kind), what]]);
}

/** Adds frames to the timeline and the graph. */
export function framesCame(facts) {
  second ??= { to_host: 0, to_guest: 0 };
  second.to_host += facts.to_host;
  second.to_guest += facts.to_guest;
  const more = facts.to_host + facts.to_guest - facts.frames.length;
  show(byId('left-out'), more > 0 ? `The list has only the latest ${facts.frames.length} of ${facts.to_host + facts.to_guest} frames; all are counted.` : '');
  add(facts.frames.map((each) => [
    clock(each.when),
    `${each.direction === 'guest>host' ? 'guest' : 'host'} ${VERBS[each.kind]}${each.command === null ? '' : ` ${each.command} ${each.name ?? '(unknown)'}`}`,
    each.text,
  ]));
}

function add(rows) {
  held.push(...rows);
  held = held.slice(-KEPT);
  if (!byId('pause').checked) flush();
}

export function flush() {
  const body = byId('timeline');
  const made = held.reverse().map(([when, what, text]) => make('tr', {},
    make('td', {}, when), make('td', {}, what), make('td', { class: 'text' }, text)));
  held = [];
  body.prepend(...made);
  while (body.rows.length > KEPT) body.lastChild.remove();
}

/** Each second: the graph. */
export function rateTick() {
  if (name === null) return;
  rates.push(second ?? { to_host: 0, to_guest: 0 });
  second = null;
  rates = rates.slice(-SECONDS);
  drawRates();
}

function drawRates() {
  const most = Math.max(1, ...rates.flatMap((each) => [each.to_host, each.to_guest]));
  const line = (of) => {
    const made = document.createElementNS(SVG, 'polyline');
    made.setAttribute('class', of.replace('_', '-'));
    const first = SECONDS - rates.length;
    made.setAttribute('points', rates.map((each, place) => `${first + place},${50 - 48 * each[of] / most}`).join(' '));
    return made;
  };
  const svg = document.createElementNS(SVG, 'svg');
  for (const [key, value] of [['viewBox', `0 0 ${SECONDS - 1} 50`], ['preserveAspectRatio', 'none'], ['class', 'rates'], ['aria-hidden', 'true']]) {
    svg.setAttribute(key, value);
  }
  svg.append(line('to_host'), line('to_guest'));
  byId('graph').replaceChildren(svg);
  const last = rates.at(-1) ?? { to_host: 0, to_guest: 0 };
  show(byId('rate'), `To the host (line): ${last.to_host}; to the guest (dashes): ${last.to_guest}; at most ${most === 1 && !last.to_host ? 0 : most} in the last minute.`);
}
