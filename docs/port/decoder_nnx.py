"""A transformer of a billion parameters in Flax NNX, for its shapes only."""

from flax import nnx

WIDTH, BLOCKS, HEADS, WORDS = 2048, 18, 16, 50_000


class Block(nnx.Module):
    def __init__(self, *, rngs):
        self.norm0 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, decode=False, rngs=rngs
        )
        self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.widen = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm0(x))
        return x + self.narrow(nnx.gelu(self.widen(self.norm1(x))))


class Decoder(nnx.Module):
    """Takes a batch of words; the embedding is the last layer, too."""

    def __init__(self, *, rngs):
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        blocks = [Block(rngs=rngs) for _ in range(BLOCKS)]
        self.blocks = nnx.Sequential(*blocks)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, words):
        x = self.blocks(self.embed(words))
        return self.embed.attend(self.norm(x))
