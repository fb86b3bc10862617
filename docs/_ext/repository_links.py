"""Links that work both in the repository and on the site.

The site has the folders `tutorials` and `benchmarks` inside its own, so a guide page that links to
`../../benchmarks/README.md`, where the file is, means `../benchmarks/README.md` there.
"""

import re

OUTSIDE = re.compile(r"\]\(\.\./\.\./(tutorials|benchmarks)/")


def _read(app, document, source):
    source[0] = OUTSIDE.sub(r"](../\1/", source[0])


def setup(app):
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
