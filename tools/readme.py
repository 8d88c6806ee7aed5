"""README.md from nbs/index.ipynb: prose, code and saved outputs, without hidden cells. `--check` only compares."""
import base64
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README, PICTURES = ROOT/"README.md", ROOT/"nbs/images"


def picture(data, pictures, alt):
    "Remember a picture under a name; returns the Markdown that shows it"
    name = f"readme-{len(pictures)}.png"
    pictures[name] = base64.b64decode("".join(data))
    return f"![{alt}](nbs/images/{name})"


def outputs(cell, pictures):
    "A cell's saved outputs as Markdown: Markdown as it is, text in a block, pictures as files"
    alt = re.search(r"^#\|\s*fig-alt:\s*(.*?)\s*$", "".join(cell["source"]), re.M)
    for o in cell.get("outputs", []):
        data = o.get("data", {"text/plain": o.get("text", "")})
        if "text/markdown" in data: yield "".join(data["text/markdown"]).strip()
        elif "image/png" in data: yield picture(data["image/png"], pictures, alt[1].strip('"') if alt else "")
        elif "text/plain" in data: yield "```\n" + "".join(data["text/plain"]).strip("\n") + "\n```"


def hidden(source, what):
    "Does a cell say so in its first lines?"
    return re.search(rf"^#\|\s*{what}", source, re.M)


def parts(cell, pictures):
    "A cell as pieces of Markdown"
    source = "".join(cell["source"]).strip()
    if hidden(source, r"hide\b"): return
    if cell["cell_type"] == "markdown": yield source
    if cell["cell_type"] == "code" and source:
        code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
        if code and not hidden(source, r"echo:\s*false"): yield f"```python\n{code}\n```"
        yield from outputs(cell, pictures)


def readme():
    "The text of README.md, and its pictures by name"
    pictures = {}
    cells = json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    pieces = ["<!-- made from nbs/index.ipynb by `make readme`: edit that -->"]
    for cell in cells: pieces += parts(cell, pictures)
    return re.sub(r"\]\((?=[\w/]+\.ipynb)", "](nbs/", "\n\n".join(pieces) + "\n"), pictures


def same(text, pictures):
    "Is what is committed what the index makes?"
    files = {PICTURES/n: b for n, b in pictures.items()}
    return (README.read_text(encoding="utf-8") == text
            and all(p.exists() and p.read_bytes() == b for p, b in files.items()))


if __name__ == "__main__":
    text, pictures = readme()
    if "--check" in sys.argv:
        differ = "README.md or its pictures differ from nbs/index.ipynb: run `make readme`"
        sys.exit(not same(text, pictures) and differ)
    PICTURES.mkdir(exist_ok=True)
    README.write_text(text, encoding="utf-8")
    for n, b in pictures.items(): (PICTURES/n).write_bytes(b)
