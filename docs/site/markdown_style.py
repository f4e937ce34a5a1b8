"""The difference between Markdown on a repository page and in Python-Markdown, which builds the site."""

import re

ITEM = re.compile(r"[*+-] |\d+\. |\|")


def separated(markdown: str) -> str:
    r"""Puts an empty line between a paragraph and the list or table that follows it.

    Example:
        >>> separated("Two axes:\n* one\n* two\n  lines")
        'Two axes:\n\n* one\n* two\n  lines'
    """
    lines: list[str] = []
    in_fence = False
    for line in markdown.split("\n"):
        above = lines[-1] if lines else ""
        in_paragraph = above and not above.startswith((" ", "#", "```")) and not ITEM.match(above)
        if not in_fence and ITEM.match(line) and in_paragraph:
            lines.append("")
        in_fence ^= line.startswith("```")
        lines.append(line)
    return "\n".join(lines)
