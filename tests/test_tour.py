"""The notebook docs/tour.ipynb runs from top to bottom on a run, and its pictures are pictures."""

import json
from pathlib import Path

from processes import ROOT, beside_a_run

from wm.runs.run import Run

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
# As a notebook does: all cells in one namespace, and the value of a cell's last expression is shown.
RUN = """
import ast, json, sys
names, shown = {"__name__": "__main__"}, []
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            shown.append(value)
made = [one for one in shown if one]
html = [hasattr(one, "_repr_html_") for one in made]
print(json.dumps([o._repr_html_()[:26] if h else o._repr_png_()[1:4].decode() for o, h in zip(made, html)]))
"""


def test_the_tour_runs(tiny: Run, tmp_path: Path) -> None:
    done = beside_a_run(tiny.uri, tmp_path, RUN, NOTEBOOK)
    assert done.returncode == 0, done.stderr
    pictures = json.loads(done.stdout.splitlines()[-1])
    assert pictures == ["PNG", "PNG", "PNG", "PNG", '<img src="data:image/webp;']
    assert "generation 4: mean return" in done.stdout


def test_the_file_holds_no_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert NOTEBOOK.stat().st_size < 20_000
