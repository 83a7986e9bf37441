# SPDX-License-Identifier: Apache-2.0
"""The style sheet of a report's page, with a light and a dark theme."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --back: #f6f6f4; --card: #fff; --text: #1c1c20; --soft: #66666e; --line: #ddddd8; }
@media (prefers-color-scheme: dark) {
  :root { --back: #17171a; --card: #222226; --text: #ececee; --soft: #a0a0a8; --line: #3a3a40; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1700px; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 12px; }
.run { color: var(--soft); margin: 0 0 20px; } .run b { color: var(--text); font-weight: 600; }
.summary { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.summary > * { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; }
svg { width: 460px; max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg .grid { stroke: var(--line); } svg .mark { stroke: var(--soft); stroke-dasharray: 4 3; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); } th, td { padding: 2px 14px 2px 0; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; margin: 0 0 16px; }
header { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: baseline; margin-bottom: 10px; }
.rank { color: var(--soft); min-width: 1.6em; } header b { font-size: 17px; }
.score { font-weight: 600; border: 1px solid var(--line); border-radius: 6px; padding: 0 8px; }
.name { color: var(--soft); margin-left: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 10px; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; border-radius: 4px; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; }
i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; border: 1px solid var(--line); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 10px 0 0; padding: 0; }
.legend small { color: var(--soft); }
"""
