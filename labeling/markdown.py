"""Markdown that people of the project wrote, as HTML that cannot do harm."""

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

BLOCKS = {"p", "br", "hr", "pre", "blockquote", "ul", "ol", "li", *(f"h{level}" for level in range(1, 7))}
TABLES = {"table", "thead", "tbody", "tr", "th", "td"}
INLINE = {"strong", "em", "s", "code", "a"}
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}
_parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")


def render(text: str, below: int = 0) -> SafeString:
    """`text` as HTML, its headings `below` levels further down, for pages with headings of their own.

    nh3 lets no script, style or image through, whatever the parser makes of it.
    """
    tokens = _parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + below, 6)}"
    html = _parser.renderer.render(tokens, _parser.options, {})
    return mark_safe(
        nh3.clean(html, tags=BLOCKS | TABLES | INLINE, attributes=ATTRIBUTES, url_schemes={"http", "https", "mailto"})
    )
