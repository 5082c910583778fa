// Devices on the page: a timeline of who holds each and why, latencies against their targets,
// tokens/s of both sides, and orders by hand. Inlined into page.html behind jobs.js, whose helpers
// it uses. What a server says is shown as text only; everything that grows is bounded.
'use strict';
const minute = 60000;
const events_kept = 4000, rows_shown = 64, samples_kept = 120;
const role_words = {serve: 'serving', train: 'training', shared: 'serving and training', idle: 'idle', gone: 'not there'};
const milliseconds = x => !finite(x) || x <= 0 ? '–' : x >= 10000 ? (x / 1000).toFixed(1) + ' s' : x >= 100 ? whole(x) + ' ms' : x.toFixed(1) + ' ms';
const microseconds = x => milliseconds(x / 1000);
const span = ms => ms < 1000 ? Math.max(0, Math.round(ms)) + ' ms' : ms < 10000 ? (ms / 1000).toFixed(1) + ' s' : duration(ms / 1000);
const short_holder = name => !name ? '' : name.startsWith('ftjob-') ? 'job ' + name.slice(6, 14) : name.replace(/^serve /, '');

// ---- what happened ---------------------------------------------------------------------------
// Events by sequence, oldest first. A server that began anew counts anew: what was known is dropped.
const happened = {
  by_sequence: new Map(), list: [], by_device: new Map(), newest: 0,
  add(events) {
    const known = e => this.by_sequence.get(e.sequence);
    if (events.some(e => known(e) && known(e).time_ms !== e.time_ms)) this.by_sequence.clear();
    for (const e of events) if (finite(e.sequence) && finite(e.time_ms)) this.by_sequence.set(e.sequence, e);
    this.list = [...this.by_sequence.values()].sort((a, b) => a.sequence - b.sequence).slice(-events_kept);
    if (this.by_sequence.size > events_kept) this.by_sequence = new Map(this.list.map(e => [e.sequence, e]));
    this.newest = this.list.at(-1)?.sequence ?? 0;
    this.by_device = new Map();
    for (const e of this.list) {
      if (!e.device) continue;
      if (!this.by_device.has(e.device)) this.by_device.set(e.device, []);
      this.by_device.get(e.device).push(e);
    }
  },
  of(device) { return this.by_device.get(device) || []; },
};
const changes_role = e => ['move', 'device_up', 'device_lost'].includes(e.kind);
const is_mark = e => ['refused', 'device_lost', 'assigned'].includes(e.kind);

// What a device was from when to when: {at, end, role, event?, now?}. The events tell the past, the
// newest report the present.
function segments_of(name, report, now) {
  const list = [], changes = happened.of(name).filter(changes_role);
  if (changes.length && changes[0].kind !== 'device_up') list.push({at: -Infinity, role: changes[0].from || 'idle'});
  for (const e of changes) list.push({at: e.time_ms, role: e.kind === 'device_lost' ? 'gone' : e.to, event: e});
  const last = list.at(-1);
  if (report && last?.role !== report.role) list.push({at: Math.max(report.since_ms, last?.at ?? 0), role: report.role});
  list.forEach((s, i) => { s.end = list[i + 1]?.at ?? now; });
  if (report && list.length && list.at(-1).role === report.role) list.at(-1).now = report;
  return list;
}

// ---- the timeline ----------------------------------------------------------------------------
let leases = null, clock_ahead = 0;  // of the server, in ms
const lanes = new Map();             // device: its row's elements
const server_now = () => Date.now() + clock_ahead;
const window_ms = () => +$('window').value * minute;
const mark_height = 13, bar_height = 24;

function order_select(name) {
  const select = make('select', 'order');
  select.setAttribute('aria-label', 'Role of ' + name);
  for (const [value, words] of [['auto', 'automatic'], ['serve', 'serve'], ['shared', 'share'], ['train', 'train']]) {
    const option = make('option', '', words);
    option.value = value;
    select.append(option);
  }
  select.addEventListener('change', () => assign(name, select));
  return select;
}
function lane_of(name) {
  if (lanes.has(name)) return lanes.get(name);
  const lane = {name, row: make('div', 'lane'), facts: make('div', 'facts'), track: make('div', 'track'), canvas: make('canvas'), order: order_select(name), items: []};
  const who = make('div', 'who');
  who.append(make('div', 'name', name), lane.facts);
  lane.track.tabIndex = 0;
  lane.track.setAttribute('role', 'slider');
  lane.track.setAttribute('aria-label', name + ' over time');
  lane.track.append(lane.canvas);
  lane.row.append(who, lane.track, lane.order);
  lane.row.dataset.device = name;
  lanes.set(name, lane);
  listen_to_track(lane);
  return lane;
}
function show_lane(lane, report) {
  const facts = !report ? 'lost' : report.moving_to ? report.role + ' → ' + report.moving_to
    : [role_words[report.role] || report.role, report.running || report.queued ? whole(report.running) + ' running, ' + whole(report.queued) + ' queued' : ''].filter(Boolean).join(' · ');
  lane.report = report;
  lane.facts.textContent = facts;
  lane.facts.title = facts;
  lane.order.disabled = !report || lane.ordering === true;
  if (report && !lane.ordering && document.activeElement !== lane.order) lane.order.value = report.pin || 'auto';
}
function show_lanes() {
  const reports = new Map(leases.devices.map(d => [d.device, d])), from = server_now() - window_ms();
  const lost = [...happened.by_device.keys()].filter(name => !reports.has(name) && happened.of(name).at(-1).time_ms > from);
  const names = [...reports.keys(), ...lost].sort((a, b) => a.localeCompare(b, 'en', {numeric: true})).slice(0, rows_shown);
  const wanted = names.map(name => lane_of(name).row), list = $('lanes');
  names.forEach(name => show_lane(lane_of(name), reports.get(name)));
  // Rows that stay where they are keep focus.
  if (list.children.length !== wanted.length || wanted.some((row, i) => list.children[i] !== row)) list.replaceChildren(...wanted);
  for (const name of [...lanes.keys()]) if (!names.includes(name)) lanes.delete(name);
  const more = reports.size + lost.length - names.length;
  $('more-devices').hidden = more <= 0;
  $('more-devices').textContent = 'and ' + whole(more) + ' more devices: tandem leases lists them all';
}

// A canvas of as many pixels as the screen has there, and its context in CSS pixels.
function canvas_context(canvas, height) {
  const width = canvas.parentElement.clientWidth, scale = window.devicePixelRatio || 1;
  const wide = Math.round(width * scale), high = Math.round(height * scale);
  if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width};
}
let paints = null;
function paint() {
  if (paints) return paints;
  paints = Object.fromEntries(['serve', 'train', 'on-role', 'track', 'card', 'soft', 'line', 'bad', 'ink'].map(name => [name, colour('--' + name)]));
  // Shared is both: the stripes are slices of time.
  const tile = document.createElement('canvas'), side = 14;
  tile.width = tile.height = side;
  const c = tile.getContext('2d');
  c.fillStyle = paints.serve;
  c.fillRect(0, 0, side, side);
  c.strokeStyle = paints.train;
  c.lineWidth = side / 2.8;
  c.beginPath();
  for (const x of [-side, 0, side]) { c.moveTo(x - 2, side + 2); c.lineTo(x + side + 2, -2); }
  c.stroke();
  paints.stripes = tile;
  return paints;
}
function fill_of(context, role) {
  const p = paint();
  return role === 'shared' ? context.createPattern(p.stripes, 'repeat') : role === 'serve' ? p.serve : role === 'train' ? p.train : p.track;
}
const x_of = (at, now, width) => width * (1 - (now - at) / window_ms());
function draw_mark(context, kind, x) {
  const p = paint(), y = mark_height / 2 - 0.5;
  context.fillStyle = context.strokeStyle = kind === 'assigned' ? p.ink : p.bad;
  context.lineWidth = 2;
  context.beginPath();
  if (kind === 'assigned') { context.moveTo(x, y - 4.5); context.lineTo(x + 4.5, y); context.lineTo(x, y + 4.5); context.lineTo(x - 4.5, y); context.fill(); }
  else if (kind === 'refused') { context.moveTo(x - 5, y - 4); context.lineTo(x + 5, y - 4); context.lineTo(x, y + 4.5); context.fill(); }
  else { context.moveTo(x - 4, y - 4); context.lineTo(x + 4, y + 4); context.moveTo(x + 4, y - 4); context.lineTo(x - 4, y + 4); context.stroke(); }
}
function draw_label(context, segment, left, right) {
  const words = short_holder(segment.now ? segment.now.job || segment.now.holder : segment.event?.job);
  if (!['serve', 'train'].includes(segment.role)) return;
  const shown = [[segment.role, words].filter(Boolean).join(' · '), segment.role].find(w => context.measureText(w).width < right - left - 14);
  if (!shown) return;
  context.fillStyle = paint()['on-role'];
  context.fillText(shown, left + 8, mark_height + bar_height / 2 + 0.5);
}
function draw_lane(lane, now) {
  const {context, width} = canvas_context(lane.canvas, mark_height + bar_height);
  const segments = segments_of(lane.name, lane.report, now), from = now - window_ms();
  lane.items = [];
  context.save();
  context.beginPath();
  context.roundRect(0, mark_height, width, bar_height, 5);
  context.clip();
  context.font = '600 12px system-ui, sans-serif';
  context.textBaseline = 'middle';
  for (const s of segments) {
    if (s.end <= from) continue;
    const left = Math.max(0, x_of(s.at, now, width)), right = Math.min(width, x_of(s.end, now, width));
    lane.items.push({...s, left, right, at: Math.max(s.at, from), began: s.at});
    if (s.role === 'gone') continue;
    context.fillStyle = fill_of(context, s.role);
    context.fillRect(left, mark_height, Math.max(1, right - left), bar_height);
    if (s.at > from) { context.fillStyle = paint().card; context.fillRect(left, mark_height, right - left > 4 ? 1.5 : 0, bar_height); }
    draw_label(context, s, left, right);
  }
  context.restore();
  for (const e of happened.of(lane.name)) {
    if (!is_mark(e) || e.time_ms < from) continue;
    const x = x_of(e.time_ms, now, width), kept = Math.min(width - 6, Math.max(6, x));
    draw_mark(context, e.kind, kept);
    lane.items.push({at: e.time_ms, mark: e, left: kept, right: kept});
  }
  lane.items.sort((a, b) => a.at - b.at);
}
function draw_axis(now) {
  const {context, width} = canvas_context($('axis'), 18), p = paint();
  const step = [0.25, 0.5, 1, 2, 5, 10, 15, 20].find(m => m * minute * width / window_ms() > 76) * minute || 30 * minute;
  const zone = new Date().getTimezoneOffset() * minute;
  context.font = '11.5px system-ui, sans-serif';
  context.textBaseline = 'bottom';
  context.textAlign = 'center';
  for (let at = Math.ceil((now - window_ms() - zone) / step) * step + zone; at <= now; at += step) {
    const x = x_of(at, now, width);
    context.fillStyle = p.line;
    context.fillRect(x, 0, 1, 4);
    context.fillStyle = p.soft;
    if (x > 26 && x < width - 26) context.fillText(new Date(at).toLocaleTimeString('en-GB', step < minute ? {} : {hour: '2-digit', minute: '2-digit'}), x, 18);
  }
}
function draw_timeline() {
  if (!leases || document.hidden) return;
  const now = server_now();
  for (const lane of lanes.values()) draw_lane(lane, now);
  draw_axis(now);
  place_tip();
}

// ---- what one stretch or mark was ------------------------------------------------------------
// Pointed at, tapped, or reached by the arrow keys: it floats, so that nothing moves.
let pointed = null;  // {lane, at, mark}: found again after each drawing
const item_of = () => pointed && pointed.lane.items.find(i => pointed.mark ? i.mark?.sequence === pointed.mark : !i.mark && i.left <= i.right && pointed.at >= i.at && pointed.at <= i.end);
// Events name jobs only: of the past, who serves is known when one alone does.
function holders_of(item) {
  const serving = [...new Set(leases.devices.filter(d => d.role === 'serve' || d.role === 'shared').map(d => d.holder))];
  const server = item.now && item.role !== 'train' ? item.now.holder : serving.length === 1 ? serving[0] : '';
  const job = item.now?.job || item.event?.job;
  return [['serve', 'shared'].includes(item.role) && server, ['train', 'shared'].includes(item.role) && job].filter(Boolean).join(' with ');
}
function tip_lines(item, lane) {
  const e = item.mark || item.event, now = item.now, lines = [];
  const add = (cls, text) => { if (text) lines.push(make('div', cls, text)); };
  if (item.mark) {
    const what = {refused: 'A move to ' + e.to + ' was refused', assigned: 'An order by hand', device_lost: 'The device was lost'}[e.kind];
    add('tip-title', lane.name + ': ' + what);
    add('facts', new Date(e.time_ms).toLocaleTimeString('en-GB') + (e.epoch ? ' · epoch ' + e.epoch : ''));
  } else {
    add('tip-title', lane.name + ': ' + (role_words[item.role] || item.role));
    add('', holders_of(item));
    const since = isFinite(item.began) ? 'since ' + new Date(item.began).toLocaleTimeString('en-GB') : 'since before that';
    const epoch = now?.epoch ?? e?.epoch;
    add('facts', since + (isFinite(item.began) ? ', ' + span(item.end - item.began) : '') + (epoch ? ' · epoch ' + epoch : ''));
  }
  add('tip-cause', e?.cause?.replace('_', ' '));
  add('', e?.why || now?.why);
  if (e && !item.mark && finite(e.held_after_us) && e.held_after_us >= 0)
    add('facts', 'held after ' + microseconds(e.held_after_us) + (finite(e.first_work_after_us) && e.first_work_after_us >= 0 ? ', first work after ' + microseconds(e.first_work_after_us) : ''));
  return lines;
}
function place_tip() {
  const tip = $('tip'), item = item_of();
  tip.hidden = !item;
  if (!item) return;
  const lines = tip_lines(item, pointed.lane), words = lines.map(l => l.textContent).join('. ');
  if (tip.dataset.words !== words) { tip.replaceChildren(...lines); tip.dataset.words = words; }
  const track = pointed.lane.track, card = $('timeline-card').getBoundingClientRect(), box = track.getBoundingClientRect();
  track.setAttribute('aria-valuetext', words);
  const middle = box.left - card.left + (Math.max(0, item.left) + item.right) / 2;
  const width = Math.min(360, card.width - 24);
  tip.style.width = width + 'px';
  tip.style.left = Math.min(card.width - width - 12, Math.max(12, (pointed.x ?? middle) - width / 2)) + 'px';
  tip.style.top = box.bottom - card.top + 6 + 'px';
}
function point_at(lane, item, x) {
  pointed = item ? {lane, at: item.mark ? item.at : (item.at + item.end) / 2, mark: item.mark?.sequence, x} : null;
  place_tip();
}
function listen_to_track(lane) {
  const {track} = lane;
  const under = e => {
    const box = track.getBoundingClientRect(), x = e.clientX - box.left;
    // Marks stand above the bar: who points at the bar means the stretch.
    const above = e.clientY - box.top < mark_height + (e.pointerType === 'touch' ? 8 : 2);
    const near = above && lane.items.filter(i => i.mark && Math.abs(i.left - x) < 8).sort((a, b) => Math.abs(a.left - x) - Math.abs(b.left - x))[0];
    const item = near || lane.items.find(i => !i.mark && x >= i.left && x <= i.right);
    point_at(lane, item, e.clientX - $('timeline-card').getBoundingClientRect().left);
    if (pointed && !near) pointed.at = server_now() - window_ms() * (1 - x / box.width);
  };
  track.addEventListener('pointermove', under);
  track.addEventListener('pointerdown', under);
  track.addEventListener('pointerleave', e => { if (e.pointerType === 'mouse' && document.activeElement !== track) point_at(null); });
  track.addEventListener('focus', () => { if (track.matches(':focus-visible')) point_at(lane, lane.items.findLast(i => !i.mark)); });
  track.addEventListener('blur', () => point_at(null));
  track.addEventListener('keydown', e => {
    const step = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[e.key], at = lane.items.indexOf(item_of());
    if (e.key === 'Escape') { point_at(null); return; }
    const next = e.key === 'Home' ? 0 : e.key === 'End' ? lane.items.length - 1 : step && (at < 0 ? lane.items.length - 1 : at + step);
    if (next === undefined) return;
    e.preventDefault();
    point_at(lane, lane.items[Math.max(0, Math.min(lane.items.length - 1, next))]);
  });
}
document.addEventListener('pointerdown', e => { if (pointed && !e.target.closest('.track')) point_at(null); });

// ---- an order by hand ------------------------------------------------------------------------
async function assign(name, select) {
  const lane = lane_of(name), role = select.value, said = $('order-said');
  lane.ordering = true;
  select.disabled = true;
  said.className = 'facts';
  said.textContent = 'Asking …';
  try {
    await call('/admin/assign', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({device: name, role})});
    said.textContent = role === 'auto' ? name + ' is left to the policy again.' : name + ' is ordered to ' + (role === 'shared' ? 'share' : role) + ' until told otherwise.';
  } catch (e) {
    said.className = 'bad';
    said.textContent = 'Refused: ' + e.message;
    select.value = lane.report?.pin || 'auto';
  }
  lane.ordering = false;
  select.disabled = false;
  select.focus({preventScroll: true});
  document.body.dataset.ordered = role;
  leases_soon(0);
}

// ---- latencies and tokens/s ------------------------------------------------------------------
// One sample a second; a missing one is a gap.
const series = () => new Array(samples_kept).fill(null);
const samples = {ttft: series(), itl: series(), serving: series(), training: series()};
function line_path(values, top, height) {
  let path = '', pen = false;
  values.forEach((v, i) => {
    if (!finite(v)) { pen = false; return; }
    const y = (height - 2 - (height - 6) * Math.min(1, v / top)).toFixed(1);
    path += pen ? 'L' + i + ',' + y : 'M' + i + ',' + y + 'h.01';
    pen = true;
  });
  return path;
}
function show_latency(name, value, target) {
  const known = value > 0 ? value : null, list = samples[name];
  list.push(known); list.shift();
  const top = 1.15 * Math.max(target || 1, ...list.map(v => v || 0));
  $(name + '-line').setAttribute('d', line_path(list, top, 64));
  $(name + '-target').setAttribute('d', target ? line_path(new Array(samples_kept).fill(target), top, 64) : '');
  $(name).textContent = milliseconds(known);
  const state = !known ? 'no requests' : !target ? '' : value <= target ? 'within target' : 'over target';
  $(name + '-state').textContent = state;
  $(name + '-state').dataset.state = state;
  $(name + '-goal').textContent = target ? 'target ' + whole(target) + ' ms' : 'no target';
  $(name + '-chart').setAttribute('aria-label', (name === 'ttft' ? 'time to first token' : 'time between two tokens') + ', 95th percentile: ' + milliseconds(known) + ', ' + state);
}
function show_side(name, rate) {
  samples[name].push(rate); samples[name].shift();
  $(name + '-line').setAttribute('d', line_path(samples[name], Math.max(1, ...samples[name].map(v => v || 0)), 40));
  $(name + '-rate').textContent = finite(rate) ? whole(rate) : '–';
}
const written = {at: 0, tokens: new Map()};  // by job, of the last report
function training_rate() {
  const at = leases.time_ms ?? performance.now(), now = new Map(leases.jobs.map(j => [j.job, j.trained_tokens]));
  let tokens = 0;
  for (const [job, count] of now) tokens += Math.max(0, count - (written.tokens.get(job) ?? count));
  const rate = written.at && at > written.at ? 1000 * tokens / (at - written.at) : null;
  written.at = at;
  written.tokens = now;
  return rate;
}
// Rounds end seldom: their tokens are spread over the time they took.
let trained = [];
function smooth_training(rate) {
  trained = [...trained.slice(-9), rate || 0];
  return rate === null ? null : trained.reduce((a, b) => a + b, 0) / trained.length;
}

// ---- asking ----------------------------------------------------------------------------------
let leases_timer, following = null, asked = 0;
const leases_soon = ms => { clearTimeout(leases_timer); leases_timer = setTimeout(poll_leases, ms); };
function show_policy() {
  const p = leases.policy, least = p.min_serve_devices, most = p.max_train_devices;
  $('policy').textContent = p.name.replace('_', ' ');
  $('policy').title = 'at least ' + least + ' serve, ' + (most ? 'at most ' + most + ' train' : 'all others may train') + '; ' + p.cooldown_ms + ' ms between changes of mind';
  $('moves').textContent = whole(leases.moves) + ' moves, ' + whole(leases.refusals) + ' refused';
}
function show_unknown(words) {
  $('no-leases').textContent = words;
  $('no-leases').hidden = !words;
  for (const id of ['timeline', 'window', 'policy', 'moves', 'pace']) $(id).hidden = Boolean(words);
  if (words) point_at(null);
}
const unknown_words = e => e.status === 401 || e.status === 403 ? 'Who holds the devices, and why, is shown to administrators: it needs their key.'
  : e.status === 404 || e.status === 501 ? 'This server does not tell who holds its devices.'
  : e.status ? e.message : leases ? '' : 'No answer from the server yet.';
async function poll_leases() {
  let wait = document.hidden ? 5000 : 1000;
  try {
    leases = await call_json('/admin/leases');
    clock_ahead = finite(leases.time_ms) ? leases.time_ms - Date.now() : 0;
    show_unknown('');
    show_policy();
    show_lanes();
    show_latency('ttft', leases.service.ttft_ms, leases.policy.ttft_target_ms);
    show_latency('itl', leases.service.itl_ms, leases.policy.itl_target_ms);
    show_side('training', smooth_training(training_rate()));
    draw_timeline();
    working.clear();
    for (const j of leases.jobs) working.set(j.job, j.working_devices);
    if (!following) follow_events();
  } catch (e) {
    show_unknown(unknown_words(e));
    written.at = 0;
    for (const name of ['ttft', 'itl']) show_latency(name, 0, leases?.policy.ttft_target_ms && leases.policy[name + '_target_ms']);
    show_side('training', null);
    wait = e.status === 404 || e.status === 501 ? 60000 : e.status === 503 ? 1000 : 5000;
  }
  document.body.dataset.asked = String(++asked);
  document.body.dataset.leases = leases ? String(leases.devices.length) : 'none';
  leases_soon(wait);
}
// What was, then what comes. How long a move took is known only after it was told: asked again.
async function load_events(limit) {
  const page = await call_json('/admin/leases/history?limit=' + limit);
  if (page.data.length && page.data[0].sequence < happened.newest) happened.by_sequence.clear();
  happened.add(page.data);
  show_log();
}
async function follow_events() {
  following = new AbortController();
  const refresh = setInterval(() => { if (!document.hidden) load_events(100).catch(() => {}); }, 5000);
  try {
    await load_events(1000);
    draw_timeline();
    const r = await call('/admin/events?after=' + happened.newest, {signal: following.signal});
    for await (const frame of events(r.body)) {
      const event = JSON.parse(frame);
      if (event.error) break;
      happened.add([event]);
      draw_timeline();
      show_log();
    }
  } catch { /* the next poll that is answered follows again */ }
  clearInterval(refresh);
  following = null;
}
const kind_words = {move: 'moved', refused: 'refused', device_up: 'device up', device_lost: 'device lost', assigned: 'by hand', job_opened: 'job opened', job_left: 'job left', policy: 'policy', coordinator: 'coordinator', node_joined: 'node joined', node_drains: 'node drains', node_left: 'node left'};
function show_log() {
  const log = $('lease-log');
  log.replaceChildren(...happened.list.slice(-40).reverse().map(e => {
    const line = make('div', ['refused', 'device_lost'].includes(e.kind) ? 'bad' : '');
    const what = e.kind === 'move' ? e.from + ' → ' + e.to : kind_words[e.kind] || e.kind;
    line.append(make('time', '', clock(e.time_ms / 1000)), make('b', '', [e.device, what].filter(Boolean).join(' ')), ' ' + (e.why || e.cause || ''));
    return line;
  }));
}
$('window').addEventListener('change', () => { show_lanes(); draw_timeline(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { paints = null; draw_timeline(); });
new ResizeObserver(draw_timeline).observe($('lanes'));
$('lanes').addEventListener('scroll', place_tip);
setInterval(draw_timeline, 500);
poll_leases();
