"""One setting of the C library that every training process wants."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc hand freed memory out again instead of returning it to the system.

    A step frees what the next one allocates: activations, gradients. By default the pages go back and each is cleared
    and mapped anew on first touch, about 80,000 of them in a step of SmolLM2-135M, which then takes a tenth longer. The
    peak stays what it was. Where the C library is another, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        if not mallopt(M_MMAP_THRESHOLD, 2**30):  # glibc before 2.35 takes no more than 32 MiB
            mallopt(M_MMAP_THRESHOLD, 2**25)
