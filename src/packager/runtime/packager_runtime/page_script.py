"""The page's script: the form's values as a request, and the answer as something to look at.

Whatever comes from the image or from the server is set as text, never as HTML.
"""

__all__ = ["SCRIPT"]

SCRIPT = r"""
"use strict";
(() => {
const by = (id) => document.getElementById(id);
// Whole numbers beyond 2^53 stay exact where the browser shows what was written.
const exact = (key, value, context) =>
  typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source)
    ? BigInt(context.source) : value;
const parse = (text) => JSON.parse(text, exact);
const facts = parse(by("facts").textContent);
const address = new URL(facts.infer, document.baseURI).href;
const form = by("form"), problem = by("problem"), result = by("result"), status = by("status");
const taken = [];       // per field: what a recorded row put there, as text and as value
let used = null;        // that row's number
let asked = 0;          // the latest question's number

function make(tag, about, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const hint = (text) => make("p", {class: "hint"}, text);

function write(value, words) {
  if (Array.isArray(value)) return "[" + value.map((one) => write(one, words)).join(", ") + "]";
  if (value === null || value === undefined) return words[0];
  if (typeof value === "boolean") return value ? words[1] : words[2];
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "object") return "{" + Object.entries(value).map(
    ([key, one]) => JSON.stringify(key) + ": " + write(one, words)).join(", ") + "}";
  return String(value);
}
const json = (value) => write(value, ["null", "true", "false"]);
const python = (value) => write(value, ["None", "True", "False"]);
const shown = (value) => {
  const text = typeof value === "string" ? value : value === null ? "no value" : json(value);
  return text.length > 300 ? text.slice(0, 299) + "\u2026" : text;
};
const isNumber = (value) => typeof value === "number" || typeof value === "bigint";

// ---- the form

const control = (at) => by("f" + at);
const untouched = (at) => taken[at] !== undefined && control(at).value === taken[at].text;
const asRecorded = () => facts.inputs.every((_, at) => untouched(at)) ? used : null;

function read(at) {
  const tensor = facts.inputs[at], text = control(at).value, blank = text.trim() === "";
  if (untouched(at)) return taken[at].value;
  if (tensor.datatype === "BYTES" && tensor.shape.length === 1)
    return text === "" && tensor.nullable ? null : text;
  if (control(at).validity.badInput) throw new Error("is not a number");
  if (blank) {
    if (tensor.nullable) return null;
    throw new Error("needs a value");
  }
  if (tensor.shape.length > 1) {
    let value;
    try { value = parse(text); } catch { value = null; }
    if (!Array.isArray(value)) throw new Error("is not a list in JSON, such as [1, 2, 3]");
    return value;
  }
  if (tensor.datatype === "BOOL") return text === "true";
  if (/INT/.test(tensor.datatype)) {
    if (!/^\s*[+-]?\d+\s*$/.test(text)) throw new Error("is not a whole number");
    return BigInt(text.trim().replace(/^\+/, ""));
  }
  const number = Number(text);
  if (Number.isFinite(number)) return number;
  if (tensor.datatype === "") return text;
  throw new Error("is not a number");
}

function sizes(value) {
  return Array.isArray(value) ? [value.length, ...(value.length ? sizes(value[0]) : [])] : [];
}

function asInput(at, value) {
  const tensor = facts.inputs[at];
  const known = tensor.shape.slice(1).map((size) => Math.max(size, 0));
  const datatype = tensor.datatype || (typeof value === "string" ? "BYTES" : "FP64");
  const shape = [1, ...(value === null ? known : sizes(value))];
  return {name: tensor.name, shape, datatype, data: [value]};
}

function readAll() {
  const wrong = [], inputs = facts.inputs.map((_, at) => {
    try { return asInput(at, read(at)); }
    catch (error) { wrong.push([at, error.message]); return asInput(at, null); }
  });
  return {wrong, inputs};
}

function put(at, value) {
  const text = value === null ? "" : typeof value === "string" ? value : json(value);
  control(at).value = text;
  taken[at] = {text: control(at).value, value};
}

function take(row) {
  facts.rows[row].forEach((value, at) => put(at, value));
  used = row;
  forgive();
  changed();
}

function forgive() {
  problem.hidden = true;
  facts.inputs.forEach((_, at) => {
    control(at).removeAttribute("aria-invalid");
    by("w" + at).hidden = true;
  });
}

function changed() {
  const row = asRecorded();
  by("from").textContent = row === null ? "These are your own values."
    : "These are the values of recorded row " + facts.numbers[row] + ". Change any of them.";
  document.querySelectorAll("tr[data-row]").forEach((one) =>
    one.classList.toggle("used", Number(one.dataset.row) === row));
  if (!result.hidden) by("stale").hidden = false;
  snippets();
}

// ---- snippets

function snippets() {
  const {inputs} = readAll();
  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const lines = (words) => inputs.map((one) => "    " + words(one)).join(",\n");
  const body = '{"inputs": [\n' + lines(json) + "\n  ]}";
  by("curl").textContent = "curl " + quoted(address)
    + " \\\n  -H 'Content-Type: application/json' \\\n  -d " + quoted(body);
  by("python").textContent = `import json
from urllib.request import Request, urlopen

inputs = [
${lines(python)},
]
request = Request(
    ${JSON.stringify(address)},
    json.dumps({"inputs": inputs}).encode(),
    {"Content-Type": "application/json"},
)
with urlopen(request) as answer:
    print(json.load(answer)["outputs"])`;
}

async function copy(button) {
  const source = by(button.dataset.copy), said = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected: press Ctrl+C or \u2318C";
  }
  status.textContent = button.textContent;
  setTimeout(() => { button.textContent = said; }, 4000);
}

// ---- refusals

function refuse(text, wrong) {
  status.textContent = "";
  result.hidden = true;
  by("waiting").hidden = true;
  by("start").hidden = true;
  const children = [make("p", {}, text)];
  if (wrong.length) children.push(make("ul", {}, ...wrong.map(([at, what]) => {
    const said = control(at);
    said.setAttribute("aria-invalid", "true");
    by("w" + at).textContent = "This " + what + ".";
    by("w" + at).hidden = false;
    const link = make("a", {href: "#f" + at}, facts.inputs[at].label);
    link.addEventListener("click", (event) => { event.preventDefault(); said.focus(); });
    return make("li", {}, link, " " + what + ".");
  })));
  by("why").replaceChildren(...children);
  problem.hidden = false;
  problem.focus();
}

// ---- the answer

const percent = (share) => {
  const text = (100 * share).toFixed(1);
  if (share > 0 && text === "0.0") return "under 0.1 %";
  return share < 1 && text === "100.0" ? "over 99.9 %" : text + " %";
};

function agrees(expected, got, datatype) {
  if (Array.isArray(expected) && Array.isArray(got))
    return expected.length === got.length
      && expected.every((one, at) => agrees(one, got[at], datatype));
  if (/^FP/.test(datatype) && isNumber(expected) && isNumber(got)) {
    const [wanted, found] = [Number(expected), Number(got)];
    return Math.abs(wanted - found) <= facts.atol + facts.rtol * Math.abs(wanted);
  }
  return expected === got
    || (isNumber(expected) && isNumber(got) && String(expected) === String(got));
}

// The protocol allows data flat and nested: give the one row that was asked for.
function row(output) {
  let data = output.data;
  if (!Array.isArray(data)) throw new Error("no data");
  const rest = output.shape.slice(1);
  if (!rest.length) return data[0];
  if (data.length === 1 && Array.isArray(data[0])) return data[0];
  for (const size of rest.slice(1).reverse()) {
    const parts = [];
    for (let at = 0; at < data.length; at += size) parts.push(data.slice(at, at + size));
    data = parts;
  }
  return data;
}

function isShares(value) {
  return Array.isArray(value) && value.length > 1
    && value.every((one) => typeof one === "number" && one >= 0 && one <= 1)
    && Math.abs(value.reduce((sum, one) => sum + one, 0) - 1) < 0.01;
}

// Names hold for this answer only if its largest share has the name that the model gave.
function namesFor(output, known, answers) {
  const shares = output.value;
  if (!known || !known.names || known.names.length !== shares.length) return null;
  const label = answers.find((one) => one.name === known.named_by);
  const names = [...known.names], top = shares.indexOf(Math.max(...shares));
  const said = label && label.value !== null ? shown(label.value) : null;
  if (said === null) return null;
  if (names[top] === null && !names.includes(said)) names[top] = said;
  return names[top] === said ? {names, at: top, label: label.name, of: output} : null;
}

function bars(shares, names, recorded) {
  const order = shares.map((_, at) => at).sort((one, two) => shares[two] - shares[one]);
  const list = make("ul", {class: "bars"}, ...order.slice(0, 12).map((at) => {
    const fill = make("div", {class: "fill"});
    fill.style.width = 100 * shares[at] + "%";
    const number = make("span", {class: "number"}, percent(shares[at]));
    const before = recorded ? "(recorded: " + percent(recorded[at]) + ")" : "";
    number.append(" ", make("span", {class: "hint"}, before));
    const name = names && names[at] !== null ? names[at] : "class " + at;
    const track = make("div", {class: "track", "aria-hidden": "true"}, fill);
    return make("li", {}, make("span", {}, name), number, track);
  }));
  const more = order.length - 12;
  const rest = "and " + more + " smaller ones, in the whole answer below";
  return more > 0 ? [list, hint(rest)] : [list];
}

function compared(answer, recorded) {
  const same = agrees(recorded, answer.value, answer.datatype);
  if (isShares(recorded)) return hint(same ? "As recorded." : "Not as recorded.");
  const verdict = same ? "the same" : "so this answer differs";
  return hint("What the model answered when the author recorded this row: " + shown(recorded)
    + ", " + verdict + ".");
}

function strange(inputs) {
  const found = [];
  facts.inputs.forEach((tensor, at) => {
    const value = inputs[at].data[0];
    const said = tensor.label + " (" + shown(value) + ")";
    if (isNumber(value) && (value < tensor.low || value > tensor.high))
      found.push(said + " lies outside " + tensor.low + " to " + tensor.high + " " + tensor.where);
    if (typeof value === "string" && tensor.seen && !tensor.seen.includes(value))
      found.push(said + " is none of " + tensor.seen.join(", ") + " " + tensor.where);
    if (value === null && tensor.gaps === false)
      found.push(tensor.label + " is missing, which it never is in the recorded examples");
  });
  return found;
}

function warning(inputs) {
  const found = strange(inputs).map((text) => make("li", {}, text + "."));
  const said = make("p", {}, "Take this with care. The model has not met the like of it:");
  return found.length ? [make("div", {class: "note"}, said, make("ul", {}, ...found))] : [];
}

function show(answer, inputs, recordedRow) {
  const answers = answer.outputs.map(
    (one) => ({name: one.name, datatype: one.datatype, value: row(one)}));
  const expected = (name) => {
    const at = facts.outputs.findIndex((one) => one.name === name);
    return recordedRow === null || at < 0 ? undefined : facts.expected[recordedRow][at];
  };
  const nodes = [];
  let spoken = "", shares = null, named = null;
  for (const one of answers.filter((one) => isShares(one.value))) {
    shares = shares || one;
    const known = facts.outputs.find((output) => output.name === one.name);
    named = named || namesFor(one, known, answers);
  }
  answers.forEach((one, at) => {
    const title = (text) => make("h4", {}, text);
    const recorded = expected(one.name);
    if (isShares(one.value)) {
      const mine = named && named.of === one ? named.names : null;
      const before = isShares(recorded) && recorded.length === one.value.length ? recorded : null;
      const differs = before && !agrees(before, one.value, one.datatype);
      nodes.push(title(one.name), ...bars(one.value, mine, differs ? before : null));
      if (!mine) nodes.push(make("p", {class: "hint"},
        "The image does not say what each class is called; they are counted from 0."));
    } else if (at === 0 && !Array.isArray(one.value)) {
      nodes.push(hint(one.name), make("p", {class: "answer"}, shown(one.value)));
      spoken = one.name + ": " + shown(one.value) + ".";
      if (named && named.label === one.name) {
        const sure = percent(named.of.value[named.at]);
        nodes.push(make("p", {class: "sure"}, "How sure the model is: " + sure));
        spoken += " How sure the model is: " + sure + ".";
      }
    } else nodes.push(title(one.name), make("p", {}, shown(one.value)));
    if (recorded !== undefined) nodes.push(compared(one, recorded));
    if (at === 0) nodes.push(...warning(inputs));
  });
  if (shares) nodes.push(hint(
    "The percentages are the model\u2019s own estimate. It always picks one of these answers, "
    + "even for something that it has never met."));
  by("outputs").replaceChildren(...nodes);
  by("raw").textContent = json(answer);
  by("stale").hidden = true;
  result.hidden = false;
  status.textContent = "Prediction. " + (spoken || "The answer is shown.");
  by("prediction").scrollIntoView({block: "nearest"});
}

async function predict(event) {
  event.preventDefault();
  forgive();
  const {wrong, inputs} = readAll(), recordedRow = asRecorded(), mine = ++asked;
  if (wrong.length) return refuse("The model was not asked, because of these values:", wrong);
  by("start").hidden = result.hidden = true;
  by("waiting").hidden = false;
  status.textContent = "Asking the model.";
  let response, text;
  try {
    const headers = {"Content-Type": "application/json"};
    response = await fetch(address, {method: "POST", headers, body: json({inputs})});
    text = await response.text();
  } catch {
    return mine === asked && refuse("The server did not answer. Is it still running?", []);
  }
  if (mine !== asked) return;
  by("waiting").hidden = true;
  let answer = null;
  try { answer = parse(text); } catch { /* said below */ }
  if (!response.ok) {
    const said = typeof answer?.error === "string" ? answer.error : "status " + response.status;
    return refuse("The server refused these values: " + said, []);
  }
  try { show(answer, inputs, recordedRow); }
  catch { refuse("The server\u2019s answer cannot be read.", []); }
}

document.querySelectorAll("button[data-copy]").forEach((button) =>
  button.addEventListener("click", () => copy(button)));
document.querySelectorAll("button:disabled").forEach((button) => { button.disabled = false; });
document.querySelectorAll("[data-live]").forEach((node) => { node.hidden = false; });
if (!form) return;
form.addEventListener("submit", predict);
form.addEventListener("input", changed);
by("clear").addEventListener("click", () => {
  facts.inputs.forEach((_, at) => { control(at).value = ""; taken[at] = undefined; });
  used = null;
  forgive();
  changed();
  control(0).focus();
});
document.querySelectorAll("button[data-row]").forEach((button) =>
  button.addEventListener("click", () => {
    take(Number(button.dataset.row));
    status.textContent = by("from").textContent;
    by("predict").focus();
  }));
if (facts.rows.length) take(0); else changed();
})();
"""
