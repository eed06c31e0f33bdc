"""The frame and the looks of ``report.html``."""

#: Placeholders in braces are filled by :func:`cellseg.runtime.writers.report.page`.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title} · cellseg</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<main>
{body}
</main>
<footer>made by cellseg</footer>
</body>
</html>
"""

STYLE = """
:root { --ink: #1c2330; --soft: #5d6779; --line: #e3e7ee; --paper: #fff; --ground: #f5f7fa; --accent: #2a7f9e;
  --warm: #e07a3f; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf3; --soft: #9aa5b8; --line: #2c3442;
  --paper: #171c25; --ground: #10141b; --accent: #58b7d6; --warm: #f09a62; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1180px; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 1.6rem 0 .6rem; font-size: 1.05rem; }
h3 { margin: 1.1rem 0 .4rem; font-size: .95rem; }
header p, footer, .hint { margin: .2rem 0 0; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem;
  margin: 1.4rem 0 1rem; }
.fact, .picture, figure, .density, .plain, details { background: var(--paper);
  border: 1px solid var(--line); border-radius: 10px; }
.fact { padding: .8rem 1rem; }
.fact b { display: block; font-size: 1.55rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.fact span { color: var(--soft); }
.notes { margin: 1.2rem 0 0; padding: 0; list-style: none; }
.notes li { margin: .3rem 0; padding: .5rem .9rem; border-left: 4px solid var(--warm);
  background: var(--paper); border-radius: 4px; }
.notes .doubt { border: 2px solid var(--warm); border-left-width: 10px; font-weight: 600; }
.picture { padding: 10px; text-align: center; }
.picture img { max-width: 100%; max-height: 85vh; border-radius: 6px; vertical-align: top; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: .8rem; }
.closeups { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .8rem; }
.closeups img { width: 100%; border-radius: 6px; vertical-align: top; margin-bottom: .5rem; }
.legend { margin: .6rem 0 0; }
.key { margin: 0 .8rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
figure { margin: 0; padding: .8rem 1rem; }
figcaption { font-weight: 600; }
figcaption::first-letter { text-transform: uppercase; }
figcaption i { float: right; color: var(--warm); font-style: normal; font-weight: 500; }
svg { width: 100%; margin-top: .5rem; }
svg rect { fill: var(--accent); }
svg line { stroke: var(--warm); stroke-width: 2; stroke-dasharray: 4 3; }
svg .limit { stroke: var(--ink); stroke-dasharray: none; }
svg text { fill: var(--soft); font-size: 12px; }
.none { color: var(--soft); }
.density { padding: 10px; text-align: center; }
.density img { max-width: 100%; max-height: 620px; border-radius: 6px; background: #fff;
  vertical-align: top; }
.plain { padding: .5rem 1.1rem 1rem; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bar { width: 60%; }
.bar span { display: block; height: .8em; margin-top: .35em; background: var(--accent); border-radius: 3px; }
details { margin-top: .9rem; padding: .8rem 1.1rem; }
summary { cursor: pointer; font-weight: 600; }
.details { margin-top: .6rem; font-size: .92em; }
footer { margin-top: 1.5rem; }
@media print { body { background: #fff; } .picture img { max-height: none; } }
"""
