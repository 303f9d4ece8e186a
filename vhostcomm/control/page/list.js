// The list of guests.

import { byId, counted, make, moment, show, since, table } from './dom.js';

const rows = new Map();
let latest = [];

const CLASSES = { ready: 'good', paused: 'bad', silent: 'bad', connected: 'warn', absent: 'warn' };

/** A guest's state in words, with what is owed and asked. */
export function stateOf(guest) {
  const words = [guest.state];
  if (guest.frozen_until) words.push(guest.state === 'ready' ? 'frozen' : 'thaw owed');
  if (guest.stop) words.push(`${guest.stop.how} requested`);
  return make('span', { class: CLASSES[guest.state] ?? '' }, words.join(', '));
}

/** The link to a guest's DSM; its address without one. */
export function linkOf(guest) {
  if (!guest.link?.startsWith('http://')) return guest.address ?? '';
  return make('a', { href: guest.link, target: '_blank', rel: 'noopener noreferrer' }, guest.link.slice(7, -1));
}

export function servedOf(guest) {
  return guest.served_serial ?? make('span', { class: 'warn' }, 'not asked yet');
}

function fill(row, guest) {
  const cells = [
    [make('a', { href: `#guest=${guest.name}` }, guest.name)],
    [stateOf(guest), ' ', since(guest.since), guest.problem ? make('small', {}, guest.problem) : null],
    [servedOf(guest)],
    [linkOf(guest)],
    [guest.last_frame ? since(guest.last_frame, ' ago') : 'none'],
  ];
  cells.forEach((cell, place) => show(row.cells[place], ...cell));
}

function newRow() {
  return make('tr', {}, make('th', { scope: 'row' }), make('td'), make('td', { class: 'wide' }), make('td'), make('td', { class: 'wide' }));
}

/** Shows guests: rows that stay are changed in place, so that focus and selection stay too. */
export function showGuests(guests) {
  latest = guests;
  const names = new Set(guests.map((each) => each.name));
  for (const [name, { row }] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  let before = null;
  for (const guest of guests) {
    const text = JSON.stringify(guest);
    let known = rows.get(guest.name);
    if (!known) rows.set(guest.name, known = { row: newRow(), text: '' });
    if (known.text !== text) fill(known.row, guest);
    known.text = text;
    const place = before ? before.nextSibling : byId('guests').firstChild;
    if (place !== known.row) byId('guests').insertBefore(known.row, place);
    before = known.row;
  }
  filterGuests();
}

/** Shows the guests that other hosts of the cluster have. Their hosts' daemons act on them. */
export function showCluster(cluster) {
  byId('cluster').hidden = cluster === null;
  if (cluster === null) return;
  show(byId('cluster-problem'), ...cluster.warnings.map((each) => make('span', { class: 'bad' }, each)));
  const rows = cluster.elsewhere.map((guest) => [
    guest.name,
    guest.host,
    make('span', {}, stateOf(guest), ' ', guest.since ? since(guest.since) : ''),
    guest.address ?? '',
    guest.frozen_until ? moment(guest.frozen_until) : '',
  ]);
  show(byId('elsewhere'), table(['Guest', 'Host', 'State', 'Address', 'Frozen until'], rows, 'No guest.'));
}

export function filterGuests() {
  const wanted = byId('filter').value.trim().toLowerCase();
  let shown = 0;
  for (const { row, text } of rows.values()) {
    row.hidden = wanted !== '' && !text.toLowerCase().includes(wanted);
    shown += !row.hidden;
  }
  const unhealthy = latest.filter((each) => each.problem).length;
  const words = [counted(latest.length, 'guest'), unhealthy ? `${unhealthy} with a problem` : 'all well'];
  if (wanted) words.push(`${shown} shown`);
  show(byId('total'), latest.length ? words.join(', ') : 'No guest is served.');
}
