"""Markdown as safe HTML: no raw HTML, no images, only what a text needs."""

import nh3
from django import template
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

register = template.Library()

TAGS = {
    *(
        "p",
        "br",
        "hr",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "strong",
        "em",
        "s",
        "code",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "li",
    ),
    *("a", "table", "thead", "tbody", "tr", "th", "td"),
}
READER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")


@register.filter
def markdown(text: str) -> SafeString:
    """HTML of `text`, its headings one level down: the page has a first heading of its own."""
    tokens = READER.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
    html = READER.renderer.render(tokens, READER.options, {})
    clean = nh3.clean(
        html, tags=TAGS, attributes={"a": {"href"}, "ol": {"start"}}, url_schemes={"http", "https", "mailto"}
    )
    return mark_safe(clean)
