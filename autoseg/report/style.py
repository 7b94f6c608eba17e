"""How the report looks: one style sheet, for light and dark, wide and narrow pages, screens and paper."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --ink: #1b2027; --soft: #59626f; --rule: #dfe3e9; --grid: #e9ecf0;
  --accent: #0b5fa5; --accent-soft: #e6f0f9; --plain: #8a94a3; --plain-soft: #d9dee5; --warn: #8a5200; --warn-soft: #fdf3e1;
  --good: #0f766e; --shadow: 0 1px 2px rgb(20 30 45 / 8%), 0 4px 14px rgb(20 30 45 / 5%);
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) { :root {
  --page: #101317; --card: #181c22; --ink: #e7eaee; --soft: #9aa5b3; --rule: #2c333c; --grid: #252b33;
  --accent: #74b5f0; --accent-soft: #17293a; --plain: #7d8896; --plain-soft: #353d48; --warn: #f0b95b; --warn-soft: #2d2415;
  --good: #5bc8bb; --shadow: none;
} }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 var(--sans); }
.frame { max-width: 1400px; margin: 0 auto; padding: 0 24px 64px; display: grid; grid-template-columns: 176px minmax(0, 1fr);
  gap: 0 32px; }
nav { position: sticky; top: 0; align-self: start; padding: 36px 0 16px; max-height: 100vh; overflow: auto; font-size: 13.5px; }
nav ol { list-style: none; margin: 0; padding: 0; }
nav a { display: block; padding: 5px 10px; border-left: 2px solid var(--rule); color: var(--soft); text-decoration: none; }
nav a:hover, nav a:focus-visible { color: var(--accent); border-color: var(--accent); }
a { color: var(--accent); }
main { min-width: 0; }
header { padding: 36px 0 8px; }
.kind { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: .04em; text-transform: uppercase; }
h1 { margin: 2px 0 4px; font-size: clamp(20px, 6vw, 34px); line-height: 1.15; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 6px; font-size: 21px; letter-spacing: -.01em; }
h3 { margin: 26px 0 8px; font-size: 16px; }
h3 .organ-name { margin-right: 6px; }
p { margin: 0 0 12px; max-width: 78ch; }
.subtitle, .lead, .quiet { color: var(--soft); }
.quiet { font-size: 13px; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; box-shadow: var(--shadow); padding: 24px 26px;
  margin-top: 20px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(226px, 1fr)); gap: 14px; margin: 18px 0 0; padding: 0;
  list-style: none; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; box-shadow: var(--shadow); padding: 14px 16px 12px;
  min-width: 0; }
.card .value { font-size: 32px; font-weight: 650; letter-spacing: -.02em; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card .by { font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
.organ-name { font-weight: 600; overflow-wrap: break-word; position: relative; display: inline-block; padding-left: 1.2em; }
.organ-name::before { content: ""; position: absolute; left: 0; top: .42em; width: .72em; height: .72em; border-radius: 50%;
  background: var(--organ); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px 22px; margin: 14px 0 18px; }
.facts dt { color: var(--soft); font-size: 12.5px; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 12px 0 18px; border-radius: 6px; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 13px; padding: 0 0 6px; }
th, td { padding: 6px 12px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 2px; }
thead th { color: var(--soft); font-weight: 550; font-size: 12.5px; vertical-align: bottom; }
tbody th { font-weight: 550; }
tbody tr:last-child > * { border-bottom: 0; }
.num { text-align: right; white-space: nowrap; padding-right: 20px; }
th.num:last-child, td.num:last-child { padding-right: 4px; }
tbody th .organ-name { white-space: nowrap; }
.nowrap { white-space: nowrap; }
.mark { display: inline-block; background: var(--accent); color: var(--card); border-radius: 4px; padding: 0 6px; font-size: 11.5px;
  font-weight: 600; margin-left: 6px; white-space: nowrap; }
code, pre { font: 12.5px/1.55 var(--mono); }
code { overflow-wrap: anywhere; }
pre { background: var(--page); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  margin: 8px 0 16px; }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); font-weight: 550; }
.note { background: var(--warn-soft); border-left: 3px solid var(--warn); border-radius: 6px; padding: 10px 14px; margin: 14px 0;
  font-size: 14px; }
.note p, .say p { margin: 0; max-width: 92ch; } .note ul { margin: 4px 0 0; padding-left: 20px; }
.say { background: var(--accent-soft); border-left: 3px solid var(--accent); border-radius: 6px; padding: 10px 14px;
  margin: 10px 0 14px; font-size: 14px; }
figure { margin: 14px 0 20px; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; max-width: 96ch; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); margin: 8px 0 12px; padding: 0;
  list-style: none; }
.legend i { display: inline-block; width: 20px; height: 0; border-top: 2.5px solid var(--c, var(--ink)); vertical-align: middle;
  margin-right: 7px; }
.legend i.dot { width: 10px; height: 10px; border: 0; border-radius: 50%; background: var(--c); }
.legend i.dashed { border-top-style: dashed; } .legend i.dotted { border-top-style: dotted; }
"""

CHARTS = """
.chart { display: block; overflow: visible; }
.chart text { font: 11.5px var(--sans); fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .grid { stroke: var(--grid); stroke-width: 1; } .chart .axis { stroke: var(--plain); }
.boxes .box { fill: var(--plain-soft); stroke: var(--plain); stroke-width: 1; }
.boxes .median { stroke: var(--ink); stroke-width: 2; } .whisker { stroke: var(--plain); stroke-width: 1.2; }
.boxes .point { fill: var(--soft); fill-opacity: .55; } .boxes .interval { stroke: var(--soft); stroke-width: 2.4; }
  .mean { fill: var(--soft); }
.is-chosen .box { fill: color-mix(in srgb, var(--organ) 26%, var(--card)); stroke: var(--organ); }
.is-chosen .median, .is-chosen .interval { stroke: var(--organ); } .is-chosen .whisker { stroke: var(--organ); }
.is-chosen .point, .is-chosen .mean { fill: var(--organ); } .is-chosen .point { fill-opacity: .75; }
.bar .rail { stroke: var(--plain-soft); stroke-width: 4; stroke-linecap: round; }
.organ-interval { stroke: var(--organ); stroke-width: 4; stroke-linecap: round; } .organ-dot { fill: var(--organ); stroke: var(--card);
  stroke-width: 2; }
.organ-point { fill: var(--organ); fill-opacity: .7; stroke: var(--card); stroke-width: .8; }
.strip .stroke { stroke: var(--organ); stroke-opacity: .45; stroke-width: 1.6; } .strip .mean { fill: var(--ink); }
.strip .before { fill: var(--card); stroke: var(--plain); stroke-width: 2; } .strip .after { fill: var(--accent); }
.curves polyline { fill: none; stroke: var(--line, var(--ink)); stroke-width: 1.4; stroke-linejoin: round; stroke-linecap: round; }
.curves .strong { stroke-width: 2.2; } .curves .single { stroke-width: 5; } .curves .train { --line: var(--plain); }
  .curves .validation { --line: var(--accent); }
.curves .faint { stroke-opacity: .45; } .diagonal { stroke: var(--plain); stroke-width: 1.2; stroke-dasharray: 5 4; fill: none; }
.axis-name { fill: var(--soft); }
.evidence { width: 100%; } .evidence td.plot { width: 40%; padding: 0 18px 0 0; vertical-align: middle; min-width: 260px; }
.evidence th, .evidence td { vertical-align: middle; padding-top: 2px; padding-bottom: 2px; }
.evidence thead th { padding-bottom: 6px; vertical-align: bottom; }
.evidence tr.chosen > * { background: var(--accent-soft); } .evidence tr.chosen th { font-weight: 700; }
  .evidence tbody th { padding-left: 10px; min-width: 180px; }
.evidence tfoot > tr > * { border: 0; } .evidence tbody tr:last-child > * { border-bottom: 1px solid var(--rule); }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 18px 26px; }
.multiples h3 { margin: 12px 0 2px; overflow-wrap: anywhere; }
.multiples .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; } .multiples h4 { margin: 0; font-size: 12.5px;
  font-weight: 500; color: var(--soft); }
.halo { stroke: #000; stroke-opacity: .55; stroke-width: 3.2; stroke-dasharray: none; }
.case { margin: 22px 0 30px; } .planes { display: flex; flex-wrap: wrap; gap: 6px; background: #000; border-radius: 8px; padding: 6px;
  justify-content: center; }
.plane-box { position: relative; flex: var(--share) 1 calc(var(--share) * 210px); max-width: calc(var(--share) * 440px);
  aspect-ratio: var(--share); min-width: 0; }
.plane { display: block; width: 100%; height: 100%; background: #000; overflow: hidden; border-radius: 3px; }
.plane-name { position: absolute; left: 6px; top: 4px; color: #fff; font-size: 11.5px; text-shadow: 0 0 3px #000, 0 0 2px #000; }
.found { fill: var(--organ); fill-opacity: .2; stroke: var(--organ); stroke-width: 2; stroke-linejoin: round; }
.truth { fill: none; stroke: #fff; stroke-width: 1.5; stroke-dasharray: 4 3; stroke-linejoin: round; }
.case figcaption { color: var(--ink); max-width: none; } .case-name { font-size: 15px; } .why { color: var(--soft); margin-right: 10px; }
.chips { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; } .chip i { display: inline-block; width: 9px; height: 9px;
  border-radius: 50%; margin-right: 6px; }
.chip b { font-variant-numeric: tabular-nums; }
.switches { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 13.5px; } .switches label { cursor: pointer; }
main:has(#hide-found:checked) .found, main:has(#hide-truth:checked) .truth { display: none; }
.heat { background: color-mix(in srgb, var(--accent) var(--depth), transparent); padding: 1px 5px; margin-right: -5px;
  border-radius: 4px; }
"""

NARROW = """
@media (max-width: 1000px) {
  .frame { display: block; padding: 0 14px 40px; }
  nav { position: static; padding: 12px 0 0; overflow-x: auto; }
  nav ol { display: flex; gap: 4px; } nav a { white-space: nowrap; border-left: 0; border-bottom: 2px solid var(--rule);
    padding: 5px 8px; }
  header { padding-top: 18px; }
}
@media (max-width: 640px) {
  body { font-size: 14.5px; } section { padding: 18px 14px; border-radius: 10px; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; } .card { padding: 11px 12px; } .card .value { font-size: 26px; }
  .facts { grid-template-columns: 1fr 1fr; gap: 10px 14px; }
  .multiples .pair { grid-template-columns: 1fr; }
  .evidence thead { display: none; }
    .evidence, .evidence tbody, .evidence tfoot, .evidence tfoot tr, .evidence tfoot td { display: block; width: 100%; }
  .evidence tbody tr { display: grid; grid-template-columns: 1fr 1fr 1fr; border-bottom: 1px solid var(--rule); padding: 8px 6px; }
  .evidence tr.chosen { background: var(--accent-soft); border-radius: 6px; } .evidence tr.chosen > * { background: none; }
  .reasons thead { display: none; } .reasons tr { display: flex; flex-wrap: wrap; gap: 0 12px; padding: 6px 0;
    border-bottom: 1px solid var(--rule); }
  .reasons tr > * { border: 0; padding: 0; } .reasons td:last-child { flex: 1 0 100%; color: var(--soft); }
  .evidence caption { display: block; width: 100%; } .evidence td.none { display: none; } tbody th .organ-name { white-space: normal; }
  .evidence tbody th, .evidence tbody td.plot { grid-column: 1 / -1; width: auto; min-width: 0; padding: 0; }
  .evidence tbody > tr > * { border: 0 !important; padding: 1px 8px 1px 0; } .evidence .num { text-align: left; }
  .evidence td[data-what]::before { content: attr(data-what); display: block; color: var(--soft); font-size: 11.5px; }
  .evidence tfoot > tr > td:not(.plot), .evidence tfoot > tr > th { display: none !important; }
    .evidence tfoot td.plot { padding: 0 6px; }
  .planes { gap: 4px; padding: 4px; } .plane-box { flex-basis: calc(var(--share) * 150px); }
}
@media print {
  :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; --grid: #e5e5e5; --shadow: none; --accent-soft: #eef3f8;
    --warn-soft: #fbf3e4; }
  body { font-size: 10.5pt; } .frame { display: block; padding: 0; max-width: none; } nav, .switches { display: none; }
  section { border: 0; padding: 8px 0; break-inside: auto; } figure, .card, tr, .case { break-inside: avoid; }
    h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
"""


def style_sheet() -> str:
    """The whole style sheet."""
    return STYLE + CHARTS + NARROW
