"""The guide's page on troubleshooting: it quotes messages as the library writes them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text()
# The first column of its tables, but for the message of Keras itself.
QUOTED = [
    quote
    for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    for quote in re.findall(r"`([^`]+)`", row)
]


def words(node):
    """The text of an expression; what it formats becomes `...`."""
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words(node.left) + words(node.right)
    return "..."


def texts():
    """The text of every string in the library."""
    for path in (ROOT / "tfprune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.JoinedStr, ast.Constant, ast.BinOp)):
                yield words(node)


TEXT = "\n".join(texts()).replace("`", "")


def test_the_page_quotes_messages():
    assert len(QUOTED) > 80


@pytest.mark.parametrize("quote", QUOTED)
def test_a_quoted_message_is_one_of_the_library(quote):
    assert quote in TEXT


def warned():
    """The first part of each message that is warned of where it is written."""
    for path in (ROOT / "tfprune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                message = node.args[0]
                if isinstance(message, ast.Call) and not isinstance(message.args[0], ast.Name):
                    yield " ".join(words(part) for part in message.args[:2])


@pytest.mark.parametrize("message", sorted(set(warned())))
def test_every_warning_is_on_the_page(message):
    section = PAGE.split("## Warnings")[1].split("\n## ")[0]
    quotes = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    assert any(quote in message for quote in quotes), message
