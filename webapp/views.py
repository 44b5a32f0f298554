"""Pages that belong to no app: the way in, health, and errors."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page was open for too long, or in another tab someone logged in as somebody else."""
    return render(request, "csrf_failure.html", status=403)
