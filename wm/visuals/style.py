"""How reports look. Charts take their colours from here too, so they follow the reader's light or dark."""

CSS = """
:root { color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1c2026; --faint: #626b78; --line: #e3e5e8; --wash: #f1f2f0;
  --one: #1f5fd0; --two: #c2570c; --three: #3f8f5b; --four: #8a4fc0; --other: #8c95a3; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #121417; --card: #1a1d22; --ink: #e6e8eb; --faint: #9aa3af; --line: #2e333a; --wash: #22262c;
  --one: #76a9ff; --two: #f59a57; --three: #72c492; --four: #c39af0; --other: #7d8794; --warn: #e8b95c; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 64px; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 4px; }
p { margin: 0 0 12px; overflow-wrap: anywhere; }
.sub, .lead, figcaption span, small, .label { color: var(--faint); }
.lead { max-width: 72ch; }
.sub { margin-bottom: 20px; }
section { border-top: 1px solid var(--line); margin-top: 36px; padding-top: 20px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 24px 32px;
  align-items: start; }
.columns > * { min-width: 0; }
.top { display: grid; gap: 20px 32px; grid-template: "score film" auto "others film" 1fr / 1fr 1fr; }
.top > * { min-width: 0; }
.top > :nth-child(1) { grid-area: score; } .top > :nth-child(2) { grid-area: film; }
.top > :nth-child(3) { grid-area: others; }
figure .columns { gap: 2px 32px; }
.hero { font-size: clamp(3rem, 11vw, 4.6rem); font-weight: 650; line-height: 1; letter-spacing: -.03em; margin: 0; }
.hero small { font-size: .42em; font-weight: 500; letter-spacing: 0; }
figure { margin: 0 0 16px; min-width: 0; }
figcaption { margin-bottom: 8px; font-size: .92rem; line-height: 1.4; }
svg { display: block; width: 100%; height: auto; overflow: visible; font: 12px system-ui, sans-serif; }
svg text { fill: var(--faint); } svg text.ink { fill: var(--ink); }
svg text.halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--faint); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .85rem; color: var(--faint); margin-bottom: 6px; }
.legend svg { display: inline-block; width: 22px; height: 10px; margin-right: 6px; }
img { display: block; max-width: 100%; height: auto; }
img.film { width: 100%; border-radius: 10px; }
.strip { display: grid; grid-template-columns: repeat(var(--count), minmax(0, 1fr)); gap: 3px; }
.strip.wrap { gap: 8px 6px; }
.strip img { width: 100%; image-rendering: pixelated; border-radius: 2px; }
.strip img + img { margin-top: 2px; }
.strip img.mark { outline: 2px solid var(--one); outline-offset: 1px; }
.strip small { display: block; font-size: .72rem; line-height: 1.3; text-align: center; padding-top: 2px; }
.labelled { margin-bottom: 8px; } .label { font-size: .85rem; margin-bottom: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 5px 8px 5px 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--faint); font-weight: 500; font-size: .82rem; }
td.number, th.number { text-align: right; overflow-wrap: normal; padding: 5px 0 5px 8px; }
.figures td:first-child { overflow-wrap: normal; width: 30%; min-width: 72px; }
.figures td { white-space: nowrap; } .figures .wraps { white-space: normal; }
.scrolls { overflow-x: auto; }
tr.strong td { font-weight: 650; }
.meter { display: block; height: 4px; border-radius: 2px; background: var(--one); margin-top: 4px; min-width: 2px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 10px 16px;
  margin: 0 0 16px; }
.facts div { border-left: 2px solid var(--line); padding-left: 10px; }
dt { color: var(--faint); font-size: .82rem; line-height: 1.3; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.missing { background: var(--wash); border-left: 3px solid var(--warn); padding: 8px 12px; border-radius: 0 6px 6px 0;
  font-size: .92rem; }
code { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--wash);
  border-radius: 4px; padding: 1px 4px; overflow-wrap: anywhere; }
pre { background: var(--wash); border-radius: 8px; padding: 12px 14px; margin: 0 0 12px; white-space: pre-wrap; }
pre code { background: none; padding: 0; overflow-wrap: anywhere; }
details { margin: 0 0 12px; } summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
@media (max-width: 820px) { .top { grid-template: "score" auto "film" auto "others" auto / 1fr; } }
@media (max-width: 560px) {
  main { padding: 20px 16px 48px; }
  table { font-size: .84rem; }
  .strip.wrap { grid-template-columns: repeat(var(--few), minmax(0, 1fr)); }
  .strip.thin > :nth-child(even) { display: none; }
  .strip.thin { grid-template-columns: repeat(var(--few), minmax(0, 1fr)); }
}
"""
