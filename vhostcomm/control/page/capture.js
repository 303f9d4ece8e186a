// A guest's recording: begun and ended here, and a look into it or into any other capture.

import { Failed, ask, pathOf } from './api.js';
import { byId, counted, make, moment, show, table } from './dom.js';

const SHOWN = 1000;
const SIZE_MAX = 64 << 20; // recordings that begin here have at most 8 MiB
const DIRECTIONS = new Set(['guest>host', 'host>guest']);

/** Reads a capture, which is a line of JSON for its header and one for each frame. Throws an Error that names the line. */
export function parse(text) {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  const objects = lines.map((line, place) => {
    try {
      return JSON.parse(line);
    } catch {
      throw new Error(`line ${place + 1} is not JSON`);
    }
  });
  const [header, ...records] = objects;
  if (header?.vchannel_capture !== 1) throw new Error('line 1 is not the header of a capture');
  const wrong = records.findIndex((each) => typeof each?.t !== 'number' || !DIRECTIONS.has(each.dir)
    || !(each.skipped || typeof each.command === 'number'));
  if (wrong >= 0) throw new Error(`line ${wrong + 2} is not the record of a frame`);
  return { header, records };
}

function rowOf(record) {
  const what = record.skipped ? `${counted(record.size, 'byte')} outside any frame` : `${record.is_response ? 'answers' : 'asks'} ${record.command} ${record.name ?? '(unknown)'}`;
  const from = record.dir === 'guest>host' ? 'guest' : 'host';
  return [record.t.toFixed(3), `${from} ${what}`, String(record.text ?? record.text_without_nul ?? record.data_hex ?? '')];
}

function look(text, name) {
  let capture;
  try {
    capture = parse(text);
  } catch (error) {
    show(byId('look'), make('p', { class: 'bad' }, `${name} is not a capture: ${error.message}.`));
    return;
  }
  const { header, records } = capture;
  const more = records.length > SHOWN ? `, of which the first ${SHOWN} are listed` : '';
  show(byId('look'),
    make('p', {}, `${name}: ${records.length} records${more}. ${header.redacted ? 'Redacted. ' : ''}${header.provenance ?? ''}`),
    make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Frames of the capture' },
      table(['Second', 'What', 'Text'], records.slice(0, SHOWN).map(rowOf), 'It has no frames.')));
}

let name = null;

export function chooseRecording(chosen) {
  name = chosen;
  for (const id of ['recording', 'recording-outcome', 'look']) byId(id).replaceChildren();
  byId('look-file').value = '';
}

export function showRecording(guest) {
  const { recording } = guest;
  byId('record').disabled = Boolean(recording?.active);
  byId('record-end').disabled = !recording?.active;
  const path = pathOf(guest.name, 'capture');
  const download = (words, redacted) => make('a', { href: `${path}?redacted=${redacted}`, download: '' }, words);
  show(byId('recording'), ...(recording ? [
    make('p', {}, `${recording.active ? 'Recording' : 'Recorded'} since ${moment(recording.since)} into ${recording.file}.`,
      recording.ended ? make('strong', { class: 'bad' }, ` Ended: ${recording.ended}.`) : null),
    make('p', {}, download('Download redacted', 'yes'), ' (identities and texts are replaced), ', download('download whole', 'no'), '.'),
  ] : [make('p', {}, 'This guest was not recorded from here.')]));
  byId('look-recording').disabled = !recording;
}

/** Prepares the buttons; `changed` asks for the guest again. */
export function prepareRecording(changed) {
  const record = (on) => async () => {
    try {
      await ask(pathOf(name, 'record'), { on });
      show(byId('recording-outcome'), on ? 'The recording has begun.' : 'The recording has ended.');
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      show(byId('recording-outcome'), make('span', { class: 'bad' }, error.message));
    }
    changed();
  };
  byId('record').addEventListener('click', record(true));
  byId('record-end').addEventListener('click', record(false));
  byId('look-recording').addEventListener('click', async () => {
    const of = name;
    const response = await fetch(`${pathOf(of, 'capture')}?redacted=no`).catch(() => null);
    const text = response?.ok ? await response.text() : null;
    if (of !== name) return;
    if (text === null) show(byId('look'), make('p', { class: 'bad' }, 'The recording can’t be read; its file was changed or removed.'));
    else look(text, 'The recording');
  });
  byId('look-file').addEventListener('change', async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    const text = file.size > SIZE_MAX ? null : await file.text().catch(() => null);
    if (text === null) show(byId('look'), make('p', { class: 'bad' }, `${file.name} can’t be read, or has more than ${SIZE_MAX >> 20} MiB.`));
    else look(text, file.name);
  });
}
