"""How the REST API describes itself: the first sentence of a docstring stands beside the address."""

from drf_spectacular.openapi import AutoSchema


class Described(AutoSchema):
    def get_summary(self) -> str:
        description: str = " ".join(self.get_description().split())
        return description.split(". ")[0].split(": ")[0].rstrip(".")
