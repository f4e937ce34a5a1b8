"""VQBridge: the codes are those of the paper's pipeline, and all of them learn."""

import math

import pytest
import torch

from vq.quantizers import (
    BridgedCodebook,
    KMeansInit,
    LearnedCodebook,
    NormalInit,
    VectorQuantizer,
    codebook_warmup,
)


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def published(book, parameters):
    """Compress, process and recover, written out for one block with two heads."""
    p = parameters
    x = p["weight"].reshape(book.groups, -1) @ p["compress.weight"].T + p["compress.bias"]
    x = layer_norm(x, p["norm.weight"], p["norm.bias"], 1e-5)
    b = {
        n.removeprefix("transformer.blocks.0."): t
        for n, t in p.items()
        if n.startswith("transformer.blocks.0.")
    }
    normed = layer_norm(x, b["norm1.weight"], b["norm1.bias"], 1e-6)
    query, key, value = (
        normed @ b[f"{name}.weight"].T + b.get(f"{name}.bias", 0) for name in ("query", "key", "value")
    )
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = (query[:, head] @ key[:, head].T / math.sqrt(4)).exp()
        heads.append(scores / scores.sum(1, keepdim=True) @ value[:, head])
    x = x + torch.cat(heads, dim=1) @ b["out.weight"].T + b["out.bias"]
    hidden = layer_norm(x, b["norm2.weight"], b["norm2.bias"], 1e-6) @ b["up.weight"].T + b["up.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    x = x + hidden @ b["down.weight"].T + b["down.bias"]
    x = layer_norm(x, p["transformer.norm.weight"], p["transformer.norm.bias"], 1e-6)
    result = (x @ p["expand.weight"].T + p["expand.bias"]).reshape(book.size, book.dim)
    return result + p["weight"] if book.is_residual else result


@pytest.mark.parametrize("is_residual", [False, True])
def test_codes_and_gradients_are_those_of_the_formula(is_residual):
    torch.manual_seed(0)
    book = BridgedCodebook(
        size=12, dim=3, groups=4, width=8, depth=1, num_heads=2, is_residual=is_residual
    ).double()
    for parameter in book.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    plain = {name: p.detach().clone().requires_grad_() for name, p in book.named_parameters()}
    expected = published(book, plain)
    torch.testing.assert_close(book.vectors, expected, atol=1e-11, rtol=1e-10)
    z = torch.randn(20, 3, dtype=torch.float64)
    out = VectorQuantizer(codebook=book)(z)
    out.loss.backward()
    chosen = torch.cdist(z, expected.detach()).argmin(1)
    assert torch.equal(out.indices, chosen)
    (z - expected[chosen]).square().mean().backward()
    for name, parameter in book.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name].grad, atol=1e-10, rtol=1e-8, msg=name)


def test_the_first_codes_are_those_of_init_and_k_means_sets_them_exactly():
    torch.manual_seed(0)
    book = BridgedCodebook(size=64, dim=4, groups=16)
    assert (book.vectors - book.weight).abs().max() < 0.1
    book = BridgedCodebook(size=4, dim=2, groups=2, init=KMeansInit())
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    VectorQuantizer(codebook=book)(centres.repeat(8, 1))
    assert {tuple(code) for code in book.vectors.tolist()} == {tuple(centre) for centre in centres.tolist()}


def test_one_step_moves_the_codes_that_no_vector_chose():
    torch.manual_seed(0)
    book = BridgedCodebook(size=32, dim=4, groups=8)
    before = book.vectors.detach().clone()
    out = VectorQuantizer(codebook=book)(torch.randn(3, 4) + 4)
    out.loss.backward()
    torch.optim.SGD(book.parameters(), lr=0.1).step()
    assert len(out.indices.unique()) <= 3
    assert ((book.vectors - before).abs().sum(1) > 0).all()


def test_codes_follow_drifting_vectors_where_codes_that_learn_alone_are_left_behind():
    used = []
    for book in (
        BridgedCodebook(size=32, dim=4, width=16, depth=1),
        LearnedCodebook(size=32, dim=4, init=NormalInit()),
    ):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(codebook=book)
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
        for step in range(80):
            optimizer.zero_grad()
            out = quantizer(torch.randn(256, 4) / 2 + step / 40)
            out.loss.backward()
            optimizer.step()
        used.append(len(out.indices.unique()))
    assert used[0] > used[1] + 8, used


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="BridgedCodebook: expected groups that divide the 16 codes, got 3"):
        BridgedCodebook(size=16, dim=4, groups=3)
    with pytest.raises(
        ValueError, match="expected an init that needs no data with is_residual=False, got KMeansInit"
    ):
        BridgedCodebook(size=16, dim=4, groups=4, init=KMeansInit(), is_residual=False)
    quantizer = VectorQuantizer(codebook=BridgedCodebook(size=16, dim=4, groups=4, is_residual=False))
    with pytest.raises(ValueError, match="expected is_residual=True to set the codes, got False"):
        codebook_warmup(quantizer, [torch.randn(40, 4)])
