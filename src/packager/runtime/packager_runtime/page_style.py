"""The page's style: system fonts, two columns where there is room, light and dark, on paper."""

__all__ = ["STYLE"]

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1c1f22; --soft: #545a61; --line: #d5d7d6;
  --edge: #767d84; --accent: #0a5a86; --on-accent: #ffffff; --bar: #0a5a86; --track: #e6e8e8;
  --bad: #a11a1a; --bad-paper: #fdf1f0; --code: #f1f2f0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e8e9ea; --soft: #a9b0b8; --line: #343a40;
    --edge: #838b93; --accent: #86c8f2; --on-accent: #0c1a24; --bar: #5fb0e3; --track: #2c3238;
    --bad: #ff9d94; --bad-paper: #2c1c1c; --code: #22272c;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere;
}
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.75rem; }
h1, h2, h3, h4, h5, h6 { line-height: 1.25; margin: 1.6em 0 .5em; text-wrap: balance; }
h1 { font-size: clamp(1.9rem, 1.4rem + 2.4vw, 2.75rem); letter-spacing: -.02em; margin: 0; }
h2 { font-size: 1.5rem; letter-spacing: -.01em; margin-top: 2.75rem; }
h3 { font-size: 1.1rem; }
h4, h5, h6 { font-size: 1rem; }
p, ul, ol, dl, blockquote { margin: 0 0 1em; }
.prose, .lead { max-width: 42rem; }
.lead { font-size: 1.2rem; color: var(--soft); margin: .6rem 0 0; }
.small, .hint { font-size: .9rem; color: var(--soft); }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 2px; }
.unseen {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
}
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .5rem 1rem; z-index: 1; }
nav ul { list-style: none; padding: 0; margin: 1.25rem 0 0; display: flex; flex-wrap: wrap; }
nav a { display: inline-block; padding: .35rem 0; margin-right: 1.25rem; }
code, pre, .digest {
  font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .875em;
}
code { background: var(--code); padding: .1em .3em; border-radius: 3px; }
pre {
  background: var(--code); padding: .9rem 1rem; margin: 0 0 1em; border-radius: 6px;
  overflow: auto; overflow-wrap: normal; line-height: 1.5; max-height: 26rem;
}
pre code { background: none; padding: 0; font-size: inherit; }
blockquote { border-left: 3px solid var(--line); padding-left: 1rem; margin-left: 0; }
hr { border: 0; border-top: 1px solid var(--line); margin: 2rem 0; }
.scroll { overflow-x: auto; margin: 0 0 1em; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
thead th, thead td { border-bottom-color: var(--edge); vertical-align: bottom; }
tr.used > * { background: var(--code); }
dt { font-weight: 600; }
dd { margin: 0 0 .7rem; }
.box {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem 1.35rem; margin: 0 0 1.25rem;
}
.box > :first-child { margin-top: 0; }
.box > :last-child, .box > :last-child > :last-child { margin-bottom: 0; }
.fields { display: grid; gap: 1.1rem; margin: 0 0 1.25rem; }
.field { display: grid; gap: .2rem; min-width: 0; }
.field p { margin: 0; }
label { font-weight: 600; }
input, select, textarea, button { font: inherit; color: inherit; max-width: 100%; }
input, select, textarea {
  width: 100%; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px;
  padding: .5rem .65rem; min-height: 2.75rem;
}
[aria-invalid="true"] { border-color: var(--bad); border-width: 2px; }
.wrong { color: var(--bad); font-size: .9rem; font-weight: 600; }
button {
  min-height: 2.75rem; padding: .45rem 1rem; border-radius: 6px; cursor: pointer;
  border: 1px solid var(--edge); background: var(--card);
}
button:hover { border-color: var(--accent); }
button:disabled { cursor: default; color: var(--soft); border-style: dashed; }
button.main:not(:disabled) {
  background: var(--accent); border-color: var(--accent); color: var(--on-accent);
  font-weight: 600; padding-inline: 1.6rem;
}
td button { min-height: 2rem; padding: .1rem .7rem; white-space: nowrap; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: 0 0 1rem; }
.problem { border: 2px solid var(--bad); background: var(--bad-paper); }
.box ul, .box ol { padding-left: 1.2rem; }
.box .bars { padding-left: 0; }
.answer { font-size: 2rem; font-weight: 650; line-height: 1.2; margin: 0 0 .25rem; }
.sure { font-size: 1.1rem; margin-bottom: .75rem; }
.bars { list-style: none; display: grid; gap: .55rem; }
.bars li { display: grid; grid-template-columns: minmax(30%, 1fr) auto; gap: 0 1rem; }
.bars .number { font-variant-numeric: tabular-nums; text-align: right; }
.bars .hint { display: inline-block; white-space: nowrap; }
.track {
  grid-column: 1 / -1; height: .6rem; background: var(--track); border-radius: .3rem;
  overflow: hidden;
}
.fill { height: 100%; min-width: 1px; background: var(--bar); forced-color-adjust: none; }
.note { border-left: 3px solid var(--accent); padding-left: .8rem; }
details { margin: 0 0 1em; }
summary { cursor: pointer; padding: .3rem 0; color: var(--accent); }
footer { margin-top: 3rem; padding-bottom: 3rem; }
footer p:first-child { border-top: 1px solid var(--line); padding-top: 1rem; }
[hidden] { display: none; }
@media (min-width: 58rem) {
  .two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.25rem; }
  .fields.many { grid-template-columns: 1fr 1fr; align-items: start; }
}
@media (prefers-reduced-motion: no-preference) {
  .fill { transition: width .25s ease-out; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print {
  body { font-size: 10.5pt; background: none; }
  nav, .skip, button, noscript { display: none; }
  pre { white-space: pre-wrap; max-height: none; overflow-wrap: anywhere; }
  .scroll { overflow: visible; }
  .box, tr, li { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; display: block; }
}
"""
