"""The whole cycle without a browser: a toy world, labelers whose preference is known, proof that it is learned."""
