"Public functions say their types, and a type checker finds nothing wrong with them."
import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

def public_functions(tree):
    "The functions and methods of a module that its `__all__` names, or that `@patch` adds to a class"
    everything = next((ast.literal_eval(n.value) for n in tree.body
                       if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"), [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            patched = any("patch" in ast.dump(d) for d in node.decorator_list)
            of_private = node.args.args and getattr(node.args.args[0].annotation, "id", "").startswith("_")
            if node.name in everything or patched and not of_private and not node.name.startswith("_"): yield node
        if isinstance(node, ast.ClassDef) and node.name in everything:
            yield from (f for f in node.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_"))


def complete(f):
    "Does every argument say its type, and the result?"
    args = [a for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs) if a.arg not in ("self", "cls")]
    return f.returns is not None and all(a.annotation is not None for a in args)


def test_public_functions_say_their_types():
    files = [p for p in sorted((ROOT/"facerec_nb").rglob("*.py")) if p.name not in ("_modidx.py", "__init__.py")]
    lacking = [f"{p.stem}.{f.name}" for p in files for f in public_functions(ast.parse(p.read_text(encoding="utf-8")))
               if not complete(f)]
    assert not lacking, lacking


def test_a_type_checker_finds_nothing():
    check = [sys.executable, "-m", "mypy", "--cache-dir", ROOT/".mypy_cache"]
    r = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert r.returncode == 0, (r.stdout + r.stderr)[-6000:]
