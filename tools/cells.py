"""Is the code short enough to be read aloud? Measures the cells of the pages and the files beside them.

    python tools/cells.py                  # every page; says what is too wide, too long or has too many parameters
    python tools/cells.py nbs/index.ipynb  # one page, with its largest exported cells
"""
import ast
import json
import re
import sys
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH, CHARACTERS, NODES, PARAMETERS = 120, 900, 90, 8
FREE = ("apps.commands", "apps.embed", "cli")  # a command has as many options as it has
FOLDERS = ("tests", "benchmarks", "tools", "studies")

Cell = namedtuple("Cell", "page module id source exported")


def pages(root=ROOT):
    "Every notebook of the project"
    return sorted(p for p in (root/"nbs").rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.parts))


def cells(page):
    "The code cells of one notebook"
    module, got = "", []
    for c in json.loads(Path(page).read_text(encoding="utf-8"))["cells"]:
        if c["cell_type"] != "code": continue
        source = "".join(c["source"])
        if m := re.search(r"^#\|\s*default_exp\s+([\w.]+)", source, re.M): module = m[1]
        exported = bool(re.search(r"^#\|\s*exports?i?\b", source, re.M))
        got.append(Cell(Path(page), module, c.get("id", ""), source, exported))
    return got


def parsed(source):
    "The syntax tree of a cell, without the lines that only IPython knows"
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M))


def size(cell):
    "Characters and syntax nodes of a cell"
    return len(cell.source), sum(1 for _ in ast.walk(parsed(cell.source)))


def quantile(values, q):
    "The value below which a share `q` of the values lies"
    values = sorted(values)
    return values[min(len(values) - 1, int(q*len(values)))] if values else 0


def measure(exported):
    "Nine in ten exported cells have at most so many characters, half of them at most so many nodes"
    sizes = [size(c) for c in exported]
    return quantile([s[0] for s in sizes], .9), quantile([s[1] for s in sizes], .5)


def wide_cells(some):
    "Lines of code cells that are too wide, one sentence each"
    return [f"{c.page.name}, cell {c.id}: a line of {len(line)} columns: {line.strip()[:60]} ..."
            for c in some for line in c.source.splitlines() if len(line) > WIDTH]


def wide_files(root=ROOT):
    "Lines of the files beside the pages that are too wide, one sentence each"
    files = [p for f in FOLDERS for p in sorted((root/f).rglob("*.py"))] + [root/"setup.py"]
    return [f"{p.relative_to(root)}:{i}: a line of {len(line)} columns" for p in files
            for i, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1) if len(line) > WIDTH]


def many_parameters(exported):
    "Exported functions that nobody can call without the manual, one sentence each"
    bad = []
    for c in exported:
        if c.module in FREE: continue
        for f in ast.walk(parsed(c.source)):
            if not isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) or f.name.startswith("_"): continue
            n = len([a for a in f.args.posonlyargs + f.args.args + f.args.kwonlyargs if a.arg not in ("self", "cls")])
            if n > PARAMETERS: bad.append(f"{c.page.name}, cell {c.id}: {f.name} has {n} parameters: group them")
    return bad


def main(names):
    some = [c for p in (map(Path, names) if names else pages()) for c in cells(p)]
    exported = [c for c in some if c.exported]
    for line in wide_cells(some) + ([] if names else wide_files()) + many_parameters(exported): print(line)
    if names:
        for c in sorted(exported, key=size, reverse=True)[:8]: print("largest:", c.page.name, c.id, *size(c))
    longest, nodes = measure(exported)
    print(f"{len(exported)} exported cells: {longest} characters at p90 (at most {CHARACTERS}), "
          f"{nodes} syntax nodes in the median (at most {NODES})")


if __name__ == "__main__": main(sys.argv[1:])
