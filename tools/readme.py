"""README.md from nbs/index.ipynb: prose, code and saved outputs, without hidden cells. `--check` only compares."""
import base64
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


PICTURES = ROOT/"nbs/images"


def picture(data, pictures):
    "Remember a picture under a name; returns the Markdown that shows it"
    name = f"readme-{len(pictures)}.png"
    pictures[name] = base64.b64decode("".join(data))
    return f"![Drawn people](nbs/images/{name})"


def outputs(cell, pictures):
    "A cell's saved outputs as Markdown: Markdown as it is, text in a block, pictures as files"
    for o in cell.get("outputs", []):
        data = o.get("data", {"text/plain": o.get("text", "")})
        if "text/markdown" in data: yield "".join(data["text/markdown"]).strip()
        elif "image/png" in data: yield picture(data["image/png"], pictures)
        elif "text/plain" in data: yield "```\n" + "".join(data["text/plain"]).strip("\n") + "\n```"


def readme():
    "The text of README.md, and its pictures by name"
    pictures = {}
    parts = ["<!-- made from nbs/index.ipynb by `make readme`: edit that -->"]
    for cell in json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).strip()
        if re.search(r"^#\|\s*hide\b", source, re.M): continue
        if cell["cell_type"] == "markdown": parts.append(source)
        elif cell["cell_type"] == "code" and source:
            code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
            if code and not re.search(r"^#\|\s*echo:\s*false", source, re.M): parts.append(f"```python\n{code}\n```")
            parts += outputs(cell, pictures)
    text = re.sub(r"\]\((?=[\w/]+\.ipynb)", "](nbs/", "\n\n".join(parts) + "\n")
    return text, pictures


if __name__ == "__main__":
    path, (text, pictures) = ROOT/"README.md", readme()
    if "--check" in sys.argv:
        same = path.read_text(encoding="utf-8") == text and all((PICTURES/n).exists() and (PICTURES/n).read_bytes() == b for n, b in pictures.items())
        sys.exit(not same and "README.md or its pictures differ from nbs/index.ipynb: run `make readme`")
    PICTURES.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    for n, b in pictures.items(): (PICTURES/n).write_bytes(b)
