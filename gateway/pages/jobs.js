// Fine-tuning on the page: the list of jobs, one job's loss curve as it grows, and a form that
// starts one. Inlined into page.html behind its own script, whose helpers it uses. What a server
// says is shown as text only.
'use strict';
const jobs_path = '/v1/fine_tuning/jobs';
const ended = job => ['succeeded', 'failed', 'cancelled'].includes(job.status);
const finite = x => typeof x === 'number' && isFinite(x);
const four = x => finite(x) ? x.toFixed(x >= 100 ? 1 : 4) : '–';
const small = x => !finite(x) ? '–' : x !== 0 && Math.abs(x) < 0.001 ? x.toExponential(2) : String(+x.toPrecision(3));
const clock = seconds => new Date(seconds * 1000).toLocaleTimeString('en-GB');
const duration = s => s < 60 ? Math.round(s) + ' s' : s < 3600 ? Math.floor(s / 60) + ' m ' + String(Math.round(s % 60)).padStart(2, '0') + ' s'
  : Math.floor(s / 3600) + ' h ' + String(Math.floor(s / 60 % 60)).padStart(2, '0') + ' m';
// How far it is, whichever name its length goes by.
const own = job => ({...job.tandem, steps: job.tandem?.step_count ?? job.tandem?.steps});

async function call(path, options = {}) {
  const r = await fetch(path, {...options, headers: {...headers(), ...options.headers}});
  if (r.status === 401 || r.status === 403) ask_for_key();
  if (r.ok) return r;
  let words = path + ' answered ' + r.status;
  try { words = (await r.json()).error.message || words; } catch { /* no JSON: the status says it */ }
  throw Object.assign(new Error(words), {status: r.status});
}
const call_json = (path, options) => call(path, options).then(r => r.json());

// ---- one job's events ------------------------------------------------------------------------
// Its metrics by step and its messages. A job taken up again repeats steps: the later ones count.
class job_history {
  constructor() { this.seen = new Set(); this.metrics = []; this.messages = []; }
  add(event) {
    if (this.seen.has(event.id)) return;
    this.seen.add(event.id);
    const data = event.data;
    if (event.type !== 'metrics') { this.messages.push(event); return; }
    if (!data || !finite(data.step)) return;
    while (this.metrics.length && this.metrics.at(-1).step >= data.step) this.metrics.pop();
    this.metrics.push({...data, at: event.created_at});
  }
  points(name) { return this.metrics.filter(m => finite(m[name])).map(m => ({x: m.step, y: m[name]})); }
  last(name) { return this.metrics.findLast(m => finite(m[name]))?.[name]; }
  // By the pace of the last steps; events know whole seconds only.
  seconds_left(steps) {
    const recent = this.metrics.slice(-64), first = recent[0], last = recent.at(-1);
    if (recent.length < 2 || last.at - first.at < 3 || !finite(steps)) return undefined;
    return (steps - last.step) * (last.at - first.at) / (last.step - first.step);
  }
}

// ---- the list --------------------------------------------------------------------------------
let jobs = [], jobs_limit = 10, selected = null, jobs_timer, can_train = true;
let trace = new job_history();  // of the selected one
const rows = new Map();      // id: the elements of its row
const working = new Map();   // id: how many devices train it now
const last_loss = new Map(); // id: of jobs whose object does not tell it
const jobs_soon = ms => { clearTimeout(jobs_timer); jobs_timer = setTimeout(poll_jobs, ms); };

function title_of(job) {
  return job.suffix || job.user_provided_suffix || (job.fine_tuned_model || '').split(':')[3] || 'job ' + job.id.replace(/^ftjob-/, '').slice(0, 8);
}
function row_of(id) {
  if (rows.has(id)) return rows.get(id);
  const box = make('div', 'job'), head = make('button', 'job-head'), bar = make('div', 'bar thin');
  const row = {box, head, name: make('span', 'name'), chip: make('span', 'chip'), done: make('i'), facts: make('div', 'facts')};
  const line = make('span', 'row');
  head.type = 'button';
  line.append(row.name, row.chip);
  bar.append(row.done);
  head.append(line, bar, row.facts);
  head.addEventListener('click', () => select(selected === id ? null : id));
  box.append(head);
  rows.set(id, row);
  return row;
}
function show_row(job) {
  const live = (job.id === selected && trace.metrics.at(-1)) || {};  // ahead of the list
  const row = row_of(job.id), steps = own(job).steps ?? live.steps, step = Math.max(own(job).step || 0, live.step || 0);
  row.name.textContent = title_of(job);
  row.chip.textContent = job.status.replace('_', ' ');
  row.chip.dataset.status = job.status;
  row.done.style.width = (steps ? 100 * step / steps : 0) + '%';
  row.done.dataset.status = job.status;
  const loss = live.train_loss ?? own(job).train_loss ?? last_loss.get(job.id);
  row.facts.textContent = ['on ' + job.model, steps ? 'step ' + whole(step) + ' of ' + whole(steps) : '',
    finite(loss) ? 'loss ' + four(loss) : '',
    working.has(job.id) && !ended(job) ? 'on ' + whole(working.get(job.id)) + (working.get(job.id) === 1 ? ' device' : ' devices') : ''].filter(Boolean).join(' · ');
  row.head.setAttribute('aria-expanded', selected === job.id);
  row.box.classList.toggle('selected', selected === job.id);
  row.box.title = job.id;
  return row.box;
}
function show_jobs(more) {
  const boxes = jobs.map(show_row);
  const list = $('jobs'), now = [...list.children].filter(e => e.classList.contains('job'));
  // Elements that stay where they are keep focus and the chart's canvas.
  if (!boxes.length || now.length !== boxes.length || now.some((e, i) => e !== boxes[i])) {
    list.replaceChildren(...boxes);
    if (!boxes.length) list.append(make('span', 'facts', 'No jobs yet. A file of examples is all it takes: New job, or tandem train on the command line.'));
  }
  $('more-jobs').hidden = !more;
  for (const id of [...rows.keys()]) if (!jobs.some(j => j.id === id)) rows.delete(id);
}
// The newest loss of jobs that do not tell it themselves; of an ended one it is asked once.
async function fetch_losses() {
  const unknown = jobs.filter(j => !finite(own(j).train_loss) && j.id !== selected && own(j).step && !(ended(j) && last_loss.has(j.id)));
  await Promise.all(unknown.slice(0, 10).map(async job => {
    const page = await call_json(jobs_path + '/' + job.id + '/events?limit=10');
    last_loss.set(job.id, page.data.find(e => e.type === 'metrics' && finite(e.data?.train_loss))?.data.train_loss);
    show_row(job);
  }));
}
let published = '';
async function poll_jobs() {
  let wait = 5000;
  try {
    const page = await call_json(jobs_path + '?limit=' + jobs_limit);
    jobs = page.data;
    can_train = true;
    if (selected && !jobs.some(j => j.id === selected)) select(null);
    show_jobs(page.has_more);
    show_detail();
    tuned_models = jobs.map(j => j.fine_tuned_model).filter(Boolean);
    if (published !== tuned_models.join()) { published = tuned_models.join(); load_models(); }
    if (jobs.some(j => !ended(j))) wait = 2000;
    fetch_losses().catch(() => {});
  } catch (e) {
    // 404 and 501: a platform that only serves. Anything else passes, and what is shown stays.
    if (e.status === 404 || e.status === 501) {
      can_train = false;
      jobs = [];
      select(null);
      $('jobs').replaceChildren(make('span', 'facts', 'This platform does not train.'));
      wait = 60000;
    }
  }
  $('new-job').hidden = !can_train;
  if (!can_train) $('job-form').hidden = true;
  document.body.dataset.jobs = String(jobs.length);
  jobs_soon(document.hidden ? 15000 : wait);
}
$('more-jobs').addEventListener('click', () => { jobs_limit = Math.min(100, jobs_limit + 20); jobs_soon(0); });

// ---- the selected job ------------------------------------------------------------------------
// It stands under its row; before a row goes, it steps out.
const detail = $('job-detail');
let listening = null, chart = null, redraw = 0;
function select(id) {
  if (id === selected) return;
  listening?.abort();
  chart?.destroy();
  chart = null;
  selected = id;
  trace = new job_history();
  $('job-error').textContent = '';
  jobs.forEach(show_row);
  detail.hidden = !id;
  if (!id) { $('jobs').after(detail); return; }
  row_of(id).box.append(detail);
  show_detail();
  listening = new AbortController();
  listen(id, listening.signal);
}
// All that was, then what comes; a stream that ends before its job is taken up again, and nothing
// is shown twice.
async function listen(id, signal) {
  while (!signal.aborted) {
    try {
      const old = [];
      for (let after = ''; ;) {
        const page = await call_json(jobs_path + '/' + id + '/events?limit=100' + after, {signal});
        old.push(...page.data);
        if (!page.has_more || !page.data.length || page.data.some(e => trace.seen.has(e.id))) break;
        after = '&after=' + page.data.at(-1).id;
      }
      old.reverse().forEach(e => trace.add(e));
      draw_soon();
      const job = jobs.find(j => j.id === id);
      if (!job || ended(job)) return;
      const r = await call(jobs_path + '/' + id + '/events?stream=true', {signal});
      for await (const frame of events(r.body)) {
        if (signal.aborted) return;
        if (frame === '[DONE]') { jobs_soon(0); break; }
        const event = JSON.parse(frame);
        if (event.error) break;
        trace.add(event);
        draw_soon();
      }
    } catch { /* the state at the top of the page says when the server is gone */ }
    await new Promise(again => setTimeout(again, 2000));
  }
}
function draw_soon() { redraw = redraw || requestAnimationFrame(() => { redraw = 0; show_detail(); }); }

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function chart_options() {
  const soft = colour('--soft'), line = colour('--line');
  const scale = title => ({type: 'linear', grid: {color: line, borderColor: line}, title: {display: true, text: title, color: soft},
    ticks: {color: soft, maxTicksLimit: 7, maxRotation: 0}});
  return {animation: false, maintainAspectRatio: false, parsing: false, normalized: true,
    interaction: {mode: 'index', axis: 'x', intersect: false},
    scales: {x: {...scale('step'), ticks: {...scale('').ticks, precision: 0}}, y: {...scale('loss'), grace: '4%'}},
    plugins: {decimation: {enabled: true, algorithm: 'min-max'},
      legend: {align: 'end', labels: {color: soft, boxWidth: 12, boxHeight: 2}},
      tooltip: {callbacks: {title: items => 'step ' + items[0].parsed.x, label: i => i.dataset.label + ' ' + four(i.parsed.y)}}}};
}
function data_sets() {
  const set = (label, name, data, more) => ({label, data, borderColor: colour(name), backgroundColor: colour(name), ...more});
  const train = trace.points('train_loss'), valid = trace.points('valid_loss');
  const sets = [set('training', '--c0', train, {order: 1, borderWidth: train.length > 400 ? 1.2 : 1.8, pointRadius: train.length > 1 ? 0 : 3, pointHitRadius: 8})];
  if (valid.length) sets.push(set('validation', '--c2', valid, {order: 0, borderWidth: 1.8, borderDash: [5, 4], pointRadius: 3}));
  return sets;
}
function show_chart() {
  const sets = data_sets(), any = sets.some(s => s.data.length);
  $('loss-box').hidden = !any;
  $('no-loss').hidden = any;
  if (!any || typeof Chart === 'undefined') return;
  if (!chart || chart.data.datasets.length !== sets.length) {
    chart?.destroy();
    chart = new Chart($('loss'), {type: 'line', data: {datasets: sets}, options: chart_options()});
  } else {
    chart.data.datasets = sets;  // whole: decimation leaves a set's data read-only
    chart.update('none');
  }
  $('loss').setAttribute('aria-label', 'loss by step: training ' + four(trace.last('train_loss')) + ', validation ' + four(trace.last('valid_loss')));
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { chart?.destroy(); chart = null; if (selected) show_chart(); });

function show_detail() {
  const job = jobs.find(j => j.id === selected);
  if (!job) return;
  const live = trace.metrics.at(-1) || {}, steps = own(job).steps ?? live.steps;
  const busy = job.status === 'running';
  const left = busy ? trace.seconds_left(steps) : undefined;
  $('job-loss').textContent = four(trace.last('train_loss') ?? own(job).train_loss);
  $('job-valid').textContent = four(trace.last('valid_loss'));
  $('job-rate').textContent = finite(live.tokens_per_second) ? whole(live.tokens_per_second) : '–';
  $('job-left').textContent = finite(left) ? duration(left) : '–';
  $('job-lr').textContent = small(live.learning_rate);
  $('job-epoch').textContent = finite(live.epoch) ? small(live.epoch) : '–';
  $('no-loss').textContent = job.status === 'failed' ? 'It failed before its first step.' : ended(job) ? 'No step was taken.'
    : 'The curve begins with the first step.';
  $('job-failed').hidden = !(job.error && job.error.message);
  $('job-failed').textContent = job.error?.message || '';
  $('job-pause').hidden = !['running', 'queued'].includes(job.status);
  $('job-resume').hidden = job.status !== 'paused';
  $('job-cancel').hidden = ended(job);
  $('job-chat').hidden = !job.fine_tuned_model;
  $('job-model').textContent = job.fine_tuned_model || '';
  $('job-log').replaceChildren(...trace.messages.slice(-4).map(e => {
    const line = make('div', e.level === 'error' ? 'bad' : '');
    line.append(make('time', '', clock(e.created_at)), e.message);
    return line;
  }));
  if (finite(live.train_loss)) last_loss.set(job.id, live.train_loss);
  show_row(job);
  show_chart();
  document.body.dataset.drawn = String(trace.metrics.length);
}
async function act(action) {
  $('job-error').textContent = '';
  try {
    const job = await call_json(jobs_path + '/' + selected + '/' + action, {method: 'POST'});
    jobs = jobs.map(j => j.id === job.id ? job : j);
    show_row(job);
    show_detail();
  } catch (e) { $('job-error').textContent = e.message; }
  jobs_soon(300);
}
$('job-pause').addEventListener('click', () => act('pause'));
$('job-resume').addEventListener('click', () => act('resume'));
// What cannot be undone is asked twice, on the same button.
$('job-cancel').addEventListener('click', () => {
  const button = $('job-cancel'), sure = button.dataset.sure === selected;
  const ask = id => { button.dataset.sure = id || ''; button.textContent = id ? 'Really cancel' : 'Cancel'; };
  ask(sure ? null : selected);
  if (sure) act('cancel'); else setTimeout(ask, 4000);
});
$('job-chat').addEventListener('click', async () => {
  const model = jobs.find(j => j.id === selected)?.fine_tuned_model;
  await load_models();
  $('model').value = model;
  $('text').focus();
});

// ---- a new job -------------------------------------------------------------------------------
$('new-job').addEventListener('click', async () => {
  const form = $('job-form');
  form.hidden = !form.hidden;
  $('new-job').textContent = form.hidden ? 'New job' : 'Close';
  if (form.hidden) return;
  try {
    const bases = (await call_json('/v1/models')).data.filter(m => !m.id.startsWith('ft:'));
    $('job-base').replaceChildren(...bases.map(m => make('option', '', m.id)));
  } catch (e) { $('form-error').textContent = e.message; }
});
// XMLHttpRequest, because fetch does not tell how much of a body has gone.
function upload(file, on_share) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(), form = new FormData();
    form.append('purpose', 'fine-tune');
    form.append('file', file);
    request.open('POST', '/v1/files');
    for (const [name, text] of Object.entries(headers())) request.setRequestHeader(name, text);
    request.upload.onprogress = e => { if (e.lengthComputable) on_share(e.loaded / e.total); };
    request.onerror = () => reject(new Error('no answer from the server'));
    request.onload = () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* the status says it */ }
      if (request.status === 401) ask_for_key();
      if (request.status < 300 && body.id) resolve(body.id);
      else reject(new Error(body.error?.message || '/v1/files answered ' + request.status));
    };
    request.send(form);
  });
}
async function start_job() {
  const note = text => { $('job-start').textContent = text; };
  const body = {model: $('job-base').value, tandem: {method: $('job-method').value}};
  const send = async (input, what) => {
    const file = $(input).files[0];
    return file && upload(file, share => note(what + ' ' + Math.round(100 * share) + ' %'));
  };
  body.training_file = await send('job-file', 'Uploading');
  const validation = await send('job-validation', 'Uploading');
  if (validation) body.validation_file = validation;
  if ($('job-suffix').value.trim()) body.suffix = $('job-suffix').value.trim();
  const epochs = $('job-epochs').value;
  body.method = {type: 'supervised', supervised: {hyperparameters: {n_epochs: epochs ? +epochs : 'auto'}}};
  note('Starting');
  return call_json(jobs_path, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body)});
}
$('job-form').addEventListener('submit', async e => {
  e.preventDefault();
  $('job-start').disabled = true;
  $('form-error').textContent = '';
  try {
    const job = await start_job();
    $('job-form').reset();
    $('job-form').hidden = true;
    $('new-job').textContent = 'New job';
    jobs.unshift(job);
    show_jobs(false);
    select(job.id);
    jobs_soon(500);
  } catch (e) { $('form-error').textContent = e.message; }
  $('job-start').disabled = false;
  $('job-start').textContent = 'Start';
});
poll_jobs();
