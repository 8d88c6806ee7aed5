"""The rooms of the package and who uses whom, as the imports say it.

    python tools/house.py           # draws the rooms in words, then says which arrows are wrong
    python tools/house.py --write   # puts the picture into CONTRIBUTING.md
"""
import ast
import json
import re
import sys
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "facerec_nb"
FLOORS = "core datasets models faces engines evaluation pipeline apps".split()  # from the ground up
ROOF, MOST_ROOMS = "apps", 9
BESIDE = ("tests", "benchmarks", "tools", "studies")  # folders beside the package
HEAD = "rooms, from the roof down"

Import = namedtuple("Import", "module lazy line")
Reach = namedtuple("Reach", "module name line")


def modules(root=ROOT):
    "Every module of the package, by its dotted name without the package's"
    files = sorted((root/PACKAGE).rglob("*.py"))
    files = [p for p in files if p.stem not in ("__init__", "_modidx")]
    return {".".join(p.relative_to(root/PACKAGE).with_suffix("").parts): p for p in files}


def stories(root=ROOT):
    "The modules that the numbered pages export"
    return [m for p in sorted((root/"nbs").glob("[0-9]*.ipynb")) if (m := page_code(p)[1])]


def room(module): return module.split(".")[0] if "." in module else None


def absolute(node, inside):
    "What `from ... import` names, as a dotted name below the package; None if it is somebody else's"
    if not node.level:
        parts = (node.module or "").split(".")
        return ".".join(parts[1:]) if parts[0] == PACKAGE else None
    if inside is None: return None
    here = inside.split(".")[:-node.level]
    return ".".join(here + ([node.module] if node.module else []))


def lazy_nodes(tree):
    "The imports that wait in a function until it is called, and those that only a type checker sees"
    waiting = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
               or isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    return {id(n) for w in waiting for n in ast.walk(w) if isinstance(n, (ast.Import, ast.ImportFrom))}


def imports(tree, inside, known):
    "The modules of the package that a file imports, at once or later"
    lazy, got = lazy_nodes(tree), []
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (base := absolute(n, inside)) is not None:
            for a in n.names:
                full = f"{base}.{a.name}".lstrip(".")
                got.append(Import(full if full in known else base, id(n) in lazy, n.lineno))
        elif isinstance(n, ast.Import):
            ours = [a.name for a in n.names if a.name.split(".")[0] == PACKAGE]
            got += [Import(name.partition(".")[2], id(n) in lazy, n.lineno) for name in ours]
    return [i for i in dict.fromkeys(got) if i.module in known and i.module != inside]


def graph(root=ROOT):
    "module -> what it imports"
    known = modules(root)
    return {m: imports(ast.parse(p.read_text(encoding="utf-8")), m, known) for m, p in known.items()}


# what is wrong, in words

def rooms_wrong(arrows):
    "Modules that stand in no room, rooms that nobody planned, and too many rooms"
    bad = [f"{m} stands in no room" for m in arrows if room(m) is None]
    rooms = {room(m) for m in arrows} - {None}
    bad += [f"the room {r} has no floor: it is none of {', '.join(FLOORS)}" for r in sorted(rooms - set(FLOORS))]
    return bad + ([f"{len(rooms)} rooms, at most {MOST_ROOMS}"] if len(rooms) > MOST_ROOMS else [])


def arrows_up(arrows):
    "Arrows from a lower room to a higher one"
    floor = {r: i for i, r in enumerate(FLOORS)}
    return [f"{m} in the room {room(m)} imports {i.module}{' inside a function' if i.lazy else ''}, line {i.line}: "
            f"an arrow from {room(m)} up to {room(i.module)}"
            for m, found in arrows.items() for i in found
            if room(m) in floor and room(i.module) in floor and floor[room(m)] < floor[room(i.module)]]


def circles(arrows):
    "Modules that wait for each other when they are imported"
    below = {m: {i.module for i in found if not i.lazy} for m, found in arrows.items()}
    bad, done = [], set()

    def walk(m, path):
        if m in path: bad.append(" -> ".join([*path[path.index(m):], m]) + ": a circle"); return
        if m in done: return
        for n in sorted(below.get(m, ())): walk(n, [*path, m])
        done.add(m)
    for m in sorted(below): walk(m, [])
    return bad


def story_readers(arrows, told):
    "Parts that import a story: a story is read, the parts are used"
    return [f"{m} imports the story {i.module}, line {i.line}: only {ROOF} and other stories may"
            for m, found in arrows.items() for i in found
            if i.module in told and room(m) != ROOF and m not in told]


def is_private(name): return name.startswith("_") and not name.startswith("__")


def aliases(tree, inside, known):
    "Names in a file that stand for modules of the package"
    names = {}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (base := absolute(n, inside)) is not None:
            for a in n.names:
                full = f"{base}.{a.name}".lstrip(".")
                if full in known: names[a.asname or a.name] = full
        elif isinstance(n, ast.Import):
            for a in n.names:
                if a.asname and a.name.startswith(PACKAGE + "."): names[a.asname] = a.name[len(PACKAGE) + 1:]
    return names


def module_of(node, names, known):
    "The module that an expression such as `plots` or `facerec_nb.core.plots` stands for"
    if isinstance(node, ast.Name): return names.get(node.id)
    full = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    return full[len(PACKAGE) + 1:] if full.startswith(PACKAGE + ".") and full[len(PACKAGE) + 1:] in known else None


def reaches(tree, inside, known):
    "Private names of other modules that a file takes: imported, as an attribute, or patched by name"
    names, got = aliases(tree, inside, known), []

    def text(node): return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (base := absolute(n, inside)) is not None and base in known:
            got += [Reach(base, a.name, n.lineno) for a in n.names if is_private(a.name)]
        elif isinstance(n, ast.Attribute) and is_private(n.attr) and (m := module_of(n.value, names, known)):
            got.append(Reach(m, n.attr, n.lineno))
        elif isinstance(n, ast.Call) and len(n.args) > 1 and is_private(name := text(n.args[1])):
            if m := module_of(n.args[0], names, known): got.append(Reach(m, name, n.lineno))
        elif m := re.fullmatch(PACKAGE + r"\.([\w.]+)\.(_[a-zA-Z]\w*)", text(n)):
            got.append(Reach(m[1], m[2], n.lineno))
    return [r for r in got if r.module != inside]


def page_code(path):
    "The code of a notebook as one text, and the module it exports"
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    code = "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(c["source"]), flags=re.M) for c in cells)
    m = re.search(r"^#\|\s*default_exp\s+([\w.]+)", code, re.M)
    return code, m and m[1]


def privates_taken(root=ROOT):
    "Who reaches a private name of another module: the package, the pages, and the folders beside them"
    known, bad = modules(root), []
    files = [(p, p.read_text(encoding="utf-8"), m) for m, p in known.items()]
    files += [(p, p.read_text(encoding="utf-8"), None) for f in BESIDE for p in sorted((root/f).rglob("*.py"))]
    books = [p for p in sorted((root/"nbs").rglob("*.ipynb")) if not any(s.startswith((".", "_")) for s in p.parts)]
    files += [(p, *page_code(p)) for p in books]
    for path, code, inside in files:
        if PACKAGE not in code and path not in known.values(): continue
        for r in reaches(ast.parse(code), inside, known):
            line = f", line {r.line}" if path.suffix == ".py" else ""
            bad.append(f"{path.relative_to(root)} takes {r.name} of {r.module}{line}: "
                       "make it public, or ask by a public name")
    return list(dict.fromkeys(bad))


def wrong(root=ROOT):
    "Everything that is wrong with the house, one sentence each"
    arrows = graph(root)
    bad = rooms_wrong(arrows) + arrows_up(arrows) + circles(arrows)
    return bad + story_readers(arrows, stories(root)) + privates_taken(root)


# the picture

def wrapped(head, words, width=100):
    "Words after a head, on lines of at most so many columns, each beginning below the first word"
    lines = [head]
    for i, w in enumerate(words):
        w += "," if i < len(words) - 1 else ""
        if len(lines[-1]) + len(w) + 1 > width: lines.append(" "*len(head))
        lines[-1] += " " + w
    return lines


def picture(arrows=None):
    "The rooms from the roof down: what stands in each, and which rooms below it uses"
    arrows, lines = graph() if arrows is None else arrows, [HEAD]
    rooms = sorted({room(m) for m in arrows} - {None}, key=lambda r: -FLOORS.index(r) if r in FLOORS else -99)
    for r in rooms:
        mine = [m for m in arrows if room(m) == r]
        uses = {room(i.module) for m in mine for i in arrows[m]} - {r, None}
        lines += wrapped(f"{r:<12}", sorted(m.partition(".")[2] for m in mine))
        lines += wrapped(f"{'':<8}uses", [u for u in rooms if u in uses] or ["nothing of ours"])
    return "\n".join(lines)


def shown(text):
    "The picture in a Markdown text; None where there is none"
    m = re.search(r"```[^\n]*\n(" + re.escape(HEAD) + r".*?)\n```", text, re.S)
    return m and m[1]


def main(args):
    print(picture())
    path = ROOT/"CONTRIBUTING.md"
    if "--write" in args:
        text = path.read_text(encoding="utf-8")
        if not (old := shown(text)): sys.exit(f"{path.name} has no block that begins with {HEAD!r}")
        path.write_text(text.replace(old, picture()), encoding="utf-8")
    bad = wrong()
    print("\n".join(["", *bad]) if bad else "\nno arrow upward, no circle, no private name taken")
    return bool(bad)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
