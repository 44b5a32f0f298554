"""Addresses of the labeling pages."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
