// Elements are made here and nowhere else: what comes from a guest is always text, never markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element. Strings among the children become text. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter((each) => each !== null));
  return made;
}

/** Replaces the content of an element, unless it is the same already: a screen reader repeats what changes. */
export function show(element, ...children) {
  const made = make('div', {}, ...children);
  if (!made.isEqualNode(copy(element))) element.replaceChildren(...made.childNodes);
}

function copy(element) {
  const copied = make('div');
  copied.append(...element.cloneNode(true).childNodes);
  return copied;
}

/** Makes a table with a row for each list of cells; without rows, the text that says so. */
export function table(heads, rows, none) {
  if (!rows.length) return none;
  const cells = (row) => row.map((each, place) => make(place ? 'td' : 'th', place ? {} : { scope: 'row' }, each));
  return make('table', {},
    make('thead', {}, make('tr', {}, ...heads.map((each) => make('th', { scope: 'col' }, each)))),
    make('tbody', {}, ...rows.map((row) => make('tr', {}, ...cells(row)))));
}

/** A number and what it counts, as in "1 byte" and "2 bytes". */
export const counted = (number, what) => `${number} ${what}${number === 1 ? '' : 's'}`;

export const clock = (when) => new Date(when).toLocaleTimeString([], { hour12: false });

export const moment = (when) => new Date(when).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' });

const UNITS = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];

/** A time's distance from now, in the greatest fitting unit. */
function distance(when) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(when)) / 1000));
  const [size, unit] = UNITS.find(([each]) => seconds >= each) ?? [1, 's'];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/** An element with the time since a moment, which `tick` keeps current. */
export function since(when, behind = '') {
  const made = make('time', { datetime: when, title: moment(when), 'data-behind': behind }, '');
  made.textContent = distance(when) + behind;
  return made;
}

export function tick() {
  for (const each of document.querySelectorAll('time[data-behind]')) {
    const text = distance(each.dateTime) + each.dataset.behind;
    if (each.textContent !== text) each.firstChild.data = text;
  }
}
