"""What a type checker knows of the public functions: `make types` fails if an annotation below is wrong."""

from typing import assert_type

import vq
from vq.generators import Generator
from vq.tokenizers import Tokenizer

assert_type(vq.load("work_dirs/emoji"), Tokenizer)
assert_type(vq.load_generator("work_dirs/llama_digits"), Generator)
assert_type(vq.__version__, str)
