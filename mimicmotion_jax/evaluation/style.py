"""Style sheet of the results page, light and dark."""

CSS = """
:root { color-scheme: light dark; --ink: #1b1d22; --soft: #5f6673; --ground: #fbfbfc; --card: #ffffff;
  --line: #e2e5ea; --accent: #b4532a; --true: #2f6f9f; --tint: #f6efe9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e9ec; --soft: #9aa1ad; --ground: #131418; --card: #1b1d22;
  --line: #30343c; --accent: #f0945f; --true: #76b5e6; --tint: #2a221d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .75rem; }
p { margin: .4rem 0; max-width: 60rem; }
.soft, figcaption, .legend { color: var(--soft); font-size: .85rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.1rem;
  margin: 0 0 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 500; font-size: .82rem; border-bottom-width: 2px; }
tr.generated td { background: var(--tint); font-weight: 600; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
table.facts td:first-child { color: var(--soft); width: 13rem; }
code, pre { font: .82rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { overflow: auto; max-height: 28rem; margin: .5rem 0 0; }
.notes { border-left: 3px solid var(--accent); padding-left: .9rem; }
video { width: 100%; display: block; border-radius: .3rem; background: #000; }
.labels { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; text-align: center; margin: .3rem 0 1rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.25rem; }
figure { margin: 0; }
.slice img { width: 100%; height: 15rem; display: block; image-rendering: pixelated; border-radius: .3rem; }
.marks { width: 100%; height: .6rem; display: block; }
.marks line { stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; }
.curves { width: 100%; height: auto; display: block; }
.curves text { fill: var(--soft); font-size: 11px; }
.curves .axis { stroke: var(--line); }
.curves .seam { stroke: var(--accent); stroke-dasharray: 2 3; opacity: .8; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.curve.generated { stroke: var(--accent); }
.curve.true { stroke: var(--true); }
.legend b { font-weight: 600; }
.legend .generated { color: var(--accent); }
.legend .true { color: var(--true); }
"""
