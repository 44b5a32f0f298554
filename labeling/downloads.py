"""Large files to a browser or a program, in memory that does not grow with them."""

import asyncio
from collections.abc import AsyncIterator

from django.http import FileResponse


class Download(FileResponse):
    """A FileResponse that an ASGI server sends piece by piece, too: Django alone would read it whole into memory."""

    block_size = 256 * 1024

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self.file_to_stream is not None  # what is given to this class is a file
        while part := await asyncio.to_thread(self.file_to_stream.read, self.block_size):
            yield part
