"""The page at ``/``: names the routes, takes a picture, shows what is seen on it. It loads nothing from elsewhere."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from string import Template

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0 0 .2em; }
h2 { font-size: 1.1em; margin: 2em 0 .4em; }
.about { opacity: .7; margin: 0 0 1.2em; }
form { display: flex; flex-wrap: wrap; gap: .6em 1.4em; align-items: center; margin: 1em 0; }
input[type=number] { width: 5em; font: inherit; }
select { font: inherit; }
#drop { display: block; border: 2px dashed #8a8a8a; border-radius: .6em; padding: 1.6em; text-align: center;
  cursor: pointer; }
#drop:hover, #drop:focus-within, #drop.over { border-color: #2a6fdb; background: #2a6fdb22; }
#file { display: block; margin: .8em auto 0; }
#said { min-height: 1.5em; margin: 1em 0; }
#said.bad { color: #c62828; font-weight: 600; }
canvas { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .9em; border-bottom: 1px solid #8888; text-align: left; font-variant-numeric: tabular-nums; }
pre, code { font-family: ui-monospace, monospace; font-size: .92em; }
pre { overflow: auto; background: #8882; padding: .8em; border-radius: .4em; margin: .4em 0; }
[hidden] { display: none; }
"""
SCRIPT = """
'use strict';
const LONGEST = 1600;  // pixels of a side of the canvas
const at = id => document.getElementById(id);
let turn = 0, last = null, token = '';

function say(text, bad) {
  at('said').textContent = text;
  at('said').className = bad ? 'bad' : '';
}

function cell(row, kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  row.append(made);
}

function shown(value) {
  if (value === null) return '';
  if (Array.isArray(value)) return value.map(shown).join(', ');
  if (typeof value === 'object') return JSON.stringify(value);
  return typeof value === 'number' && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value);
}

function table(name, things) {
  const made = document.createElement('table');
  const columns = Object.keys(things[0]);
  const head = made.createTHead().insertRow(), body = made.createTBody();
  columns.forEach(column => cell(head, 'th', column));
  for (const thing of things) {
    const row = body.insertRow();
    columns.forEach(column => cell(row, 'td', shown(thing[column])));
  }
  made.dataset.of = name;
  return made;
}

function isThings(value) {
  return Array.isArray(value) && value.every(thing => thing && typeof thing === 'object' && !Array.isArray(thing));
}

function colour(text) {
  let hue = 0;
  for (const letter of text) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  return `hsl(${hue} 90% 45%)`;
}

function draw(bitmap, answer, things) {
  const canvas = at('canvas'), pen = canvas.getContext('2d');
  canvas.hidden = !bitmap;
  if (!bitmap) return;
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const wide = canvas.width / (answer.width || bitmap.width), high = canvas.height / (answer.height || bitmap.height);
  const width = Math.max(1.5, canvas.width / 300), size = Math.max(9, canvas.width / 45);
  pen.lineWidth = width;
  pen.font = `${size}px sans-serif`;
  pen.textBaseline = 'bottom';
  for (const thing of things.filter(thing => Array.isArray(thing.box) && thing.box.length === 4).reverse()) {
    const [left, top, right, bottom] = thing.box.map((value, i) => value * (i % 2 ? high : wide));
    const text = Object.values(thing).find(value => typeof value === 'string') || '';
    const label = 'score' in thing ? `${text} ${Math.round(100 * thing.score)} %` : text;
    pen.strokeStyle = pen.fillStyle = colour(text);
    pen.strokeRect(left, top, right - left, bottom - top);
    const line = Math.max(top, 1.2 * size);
    pen.fillRect(left - width / 2, line - 1.2 * size, pen.measureText(label).width + size / 2, 1.2 * size);
    pen.fillStyle = '#fff';
    pen.fillText(label, left + size / 4, line);
  }
}

async function ask(file) {
  const mine = ++turn, query = new URLSearchParams();
  for (const name of ['top', 'min_score']) if (at(name).value) query.set(name, at(name).value);
  const path = 'predict/' + encodeURIComponent(at('model').value) + (String(query) && '?' + query);
  at('answer').replaceChildren();
  at('canvas').hidden = true;
  say(`${file.name}: asking ...`);
  const began = performance.now();
  try {
    const headers = token ? {Authorization: 'Bearer ' + token} : {};
    const answered = await fetch(path, {method: 'POST', body: file, headers});
    if (answered.status === 401) {
      token = prompt('This server asks for a token:') || '';
      if (token) return ask(file);
    }
    const text = await answered.text(), ms = Math.round(performance.now() - began);
    const answer = JSON.parse(text);
    const bitmap = answered.ok ? await createImageBitmap(file).catch(() => null) : null;
    if (mine !== turn) return;
    if (!answered.ok) return say(`${file.name}: ${answer.error}`, true);
    const lists = Object.entries(answer).filter(([, value]) => isThings(value));
    const things = lists.flatMap(([, value]) => value);
    say(`${file.name}: ${things.length || 'nothing'} found, answered in ${ms} ms`
      + (bitmap ? '' : '; this browser cannot show the picture itself'));
    draw(bitmap, answer, things);
    for (const [name, value] of lists) if (value.length) at('answer').append(table(name, value));
    const whole = document.createElement('details'), code = document.createElement('pre');
    whole.append(Object.assign(document.createElement('summary'), {textContent: 'JSON'}), code);
    code.textContent = JSON.stringify(answer, null, 1);
    at('answer').append(whole);
  } catch (error) {
    if (mine === turn) say(`${file.name}: no answer (${error.message})`, true);
  }
}

function take(files) {
  if (!files.length) return;
  last = files[0];
  ask(last);
}

at('file').addEventListener('change', () => take(at('file').files));
for (const id of ['model', 'top', 'min_score']) at(id).addEventListener('change', () => last && ask(last));
at('form').addEventListener('submit', event => event.preventDefault());
for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop'])
  document.addEventListener(kind, event => {
    event.preventDefault();
    at('drop').classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
    if (kind === 'drop') take(event.dataTransfer.files);
  });
at('curl').textContent = `curl --data-binary @image.jpg ${new URL('predict', location.href)}`;
"""
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
<p class="about">$about</p>
<label id="drop">Drop a picture here, or choose one: JPEG, PNG, or another format that the server reads
<input id="file" type="file" accept="image/*"></label>
<form id="form">
<label>Model <select id="model">$models</select></label>
<label>At most <input id="top" type="number" min="1" step="1"></label>
<label$scored>From score <input id="min_score" type="number" min="0" max="1" step="0.05"></label>
</form>
<p id="said" role="status" aria-live="polite"></p>
<canvas id="canvas" hidden></canvas>
<div id="answer"></div>
<h2>By program</h2>
<pre id="curl"></pre>
<table>
$routes
</table>
<script>$script</script>
</body>
</html>
""")
ROUTES = (
    ("POST /predict, /predict/MODEL", "an image file as the body; what is seen on it as JSON (?top=, ?min_score=)"),
    ("POST /v2/models/MODEL/infer", "Open Inference Protocol: tensors, or image files as BYTES; gRPC has the same"),
    ("GET /v2/models/MODEL", "inputs and outputs; /config, /stats and /ready behind it say more"),
    ("GET /v2/health/ready, /v2/health/live", "for probes"),
    ("POST /v2/repository/index", "the models"),
    ("GET /metrics", "for Prometheus"),
)
"""What the page says of the routes."""


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": (
        f"default-src 'none'; script-src {_hashed(SCRIPT)}; style-src {_hashed(STYLE)}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of an answer that is the page: it runs its own script, and talks to its own server alone."""


def build_page(facts: Mapping[str, str], models: Sequence[str], *, has_scores: bool) -> bytes:
    """Return the page.

    Args:
        facts: what the package says of itself, its ``name`` among it.
        models: their names, the first of which answers where none is asked for.
        has_scores: whether answers can be cut at a score.
    """
    rows = [f"<tr><td><code>{html.escape(path)}</code></td><td>{html.escape(what)}</td></tr>" for path, what in ROUTES]
    about = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "name")
    return PAGE.substitute(
        title=html.escape(facts["name"]),
        about=html.escape(about),
        style=STYLE,
        script=SCRIPT,
        models="".join(f"<option>{html.escape(name)}</option>" for name in models),
        scored="" if has_scores else " hidden",
        routes="\n".join(rows),
    ).encode()
