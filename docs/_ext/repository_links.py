"""Links that work both in the repository and on the site.

The site has the folders `tutorials` and `benchmarks` inside its own, so a guide page that links to
`../../benchmarks/README.md`, where the file is, means `../benchmarks/README.md` there; a benchmark
page that links to `../docs/guide/index.md` means `../guide/index.md`. Programs among the tutorials
are pages of the site.
"""

import re


def _read(app, document, source):
    up = "../" * (document.count("/") + 1)
    outside = re.compile(rf"\]\({re.escape(up)}(tutorials|benchmarks)/([\w./]+)")
    source[0] = outside.sub(lambda link: f"]({up[3:]}{link[1]}/{_page(link[2])}", source[0])
    if document.startswith("benchmarks/"):
        source[0] = source[0].replace("](../docs/", "](../")


def _page(file):
    return f"{file.removesuffix('.py')}.md" if file.endswith(".py") else file


def setup(app):
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
