"""Text that every database of ours can hold."""


def is_storable(text: str) -> bool:
    """PostgreSQL stores no NUL, and half a surrogate pair is not a character in UTF-8."""
    return "\x00" not in text and not any(0xD800 <= ord(character) <= 0xDFFF for character in text)
