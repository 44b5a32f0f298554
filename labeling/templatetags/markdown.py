"""`{{ text|markdown:1 }}`: its headings one level down, below the page's own."""

from django import template

from labeling.markdown import render

register = template.Library()
register.filter("markdown", render)
