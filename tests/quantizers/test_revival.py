"""Revivals: which codes are replaced, when, and with which usage."""

import copy

import pytest
import torch

from vq.quantizers import (
    EMACodebook,
    EntropyRegulariser,
    LearnedCodebook,
    NormalInit,
    ReplaceRareCodes,
    ReplaceUnusedCodes,
    VectorQuantizer,
    accumulate,
)

ALL = torch.ones(8, dtype=torch.bool)
KINDS = [EMACodebook, LearnedCodebook]


def book_with(kind, revival):
    torch.manual_seed(0)
    return kind(size=4, dim=2, init=NormalInit(), revival=revival)


def moved_by(book, step):
    before = book.vectors.detach().clone()
    step()
    return (book.vectors != before).any(dim=1).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_rarer_than_the_threshold_are_replaced_whatever_the_mean(kind):
    for scale in (1.0, 1000.0):
        book = book_with(kind, ReplaceRareCodes(threshold=2.0))
        book.usage.copy_(torch.tensor([2.0, 1.9, 5.0 * scale, 0.0]))
        z = torch.randn(8, 2) + 5
        assert moved_by(book, lambda book=book, z=z: book.prepare(z, ALL)) == [False, True, False, True]
        assert torch.cdist(book.vectors.detach()[[1, 3]], z).min(1).values.max() == 0
        assert book.usage.tolist() == [2.0, 2.0, 5.0 * scale, 2.0]


class TestPatience:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_code_is_replaced_after_so_many_steps_without_a_vector(self, kind):
        book = book_with(kind, ReplaceUnusedCodes(patience=3))
        z = torch.randn(8, 2) + 5
        chosen = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1])
        for step in range(3):
            assert moved_by(book, lambda: book.prepare(z, ALL)) == [False] * 4, step
            book.update(z, chosen, ALL)
        assert book.idle.tolist() == [0, 0, 3, 3]
        # A single vector in a step keeps a code.
        assert moved_by(book, lambda: book.prepare(z, ALL)) == [False, False, True, True]
        assert book.idle.tolist() == [0, 0, 0, 0]
        assert book.usage[2:].tolist() == [1.0, 1.0]

    def test_a_chosen_code_begins_to_wait_anew_and_masked_vectors_choose_nothing(self):
        book = book_with(LearnedCodebook, ReplaceUnusedCodes(patience=9))
        z = torch.randn(8, 2)
        book.update(z, torch.zeros(8, dtype=torch.int64), ALL)
        mask = torch.tensor([1, 1, 1, 1, 1, 1, 0, 0]).bool()
        book.update(z, torch.tensor([1, 1, 1, 1, 1, 1, 2, 2]), mask)
        assert book.idle.tolist() == [1, 0, 2, 2]
        book.update(z, torch.zeros(8, dtype=torch.int64), ~ALL)
        assert book.idle.tolist() == [1, 0, 2, 2], "a step without vectors is none"

    def test_accumulated_micro_batches_are_one_step(self):
        quantizer = VectorQuantizer(codebook=book_with(EMACodebook, ReplaceUnusedCodes(patience=9)))
        codes = quantizer.codebook.weight.clone()
        with accumulate(quantizer):
            quantizer(codes[[0, 0]])
        quantizer(codes[[1]])
        assert quantizer.codebook.idle.tolist() == [0, 0, 1, 1]

    def test_the_count_is_part_of_a_checkpoint_and_survives_half_precision(self):
        book = book_with(LearnedCodebook, ReplaceUnusedCodes(patience=400))
        book.idle.fill_(391)
        other = book_with(LearnedCodebook, ReplaceUnusedCodes(patience=400)).bfloat16()
        other.load_state_dict(book.state_dict())
        assert other.idle.tolist() == [391] * 4
        assert "idle" not in book_with(LearnedCodebook, ReplaceRareCodes()).state_dict()

    @pytest.mark.parametrize("kind", KINDS)
    def test_almost_all_codes_come_into_use(self, kind):
        torch.manual_seed(0)
        book = kind(size=64, dim=4, init=NormalInit(std=0.01), revival=ReplaceUnusedCodes(patience=5))
        quantizer, z = VectorQuantizer(codebook=book), torch.randn(2048, 4) + 5
        for _ in range(40):
            out = quantizer(z)
        assert len(out.indices.unique()) > 60


def test_invalid_arguments_raise():
    with pytest.raises(
        ValueError, match="ReplaceRareCodes: expected a positive threshold, in vectors per step, got 0"
    ):
        ReplaceRareCodes(threshold=0.0)
    with pytest.raises(ValueError, match="ReplaceUnusedCodes: expected a patience of at least 1 step, got 0"):
        ReplaceUnusedCodes(patience=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_patience_of_one_replaces_what_the_last_step_did_not_choose(kind):
    book = book_with(kind, ReplaceUnusedCodes(patience=1))
    z = torch.randn(8, 2)
    assert moved_by(book, lambda: book.prepare(z, ALL)) == [False] * 4
    book.update(z, torch.tensor([0, 0, 0, 0, 2, 2, 2, 2]), ALL)
    before = book.vectors.detach().clone()
    book.prepare(z, ALL)
    moved = (book.vectors != before).any(dim=1).tolist()
    assert moved == [False, True, False, True]


def test_codes_may_move_between_a_forward_and_its_backward():
    torch.manual_seed(0)
    book = LearnedCodebook(size=16, dim=2, init=NormalInit(), revival=ReplaceUnusedCodes(patience=1))
    together = VectorQuantizer(codebook=book, regularisers=[EntropyRegulariser()])
    apart = copy.deepcopy(together)
    before, z = book.weight.detach().clone(), torch.randn(2, 8, 2)
    torch.manual_seed(1)
    (together(z[0]).loss + together(z[1]).loss).backward()
    torch.manual_seed(1)
    for batch in z:
        apart(batch).loss.backward()
    assert not torch.equal(book.weight, before)  # the second forward has moved codes that the first one saw
    assert torch.equal(book.weight, apart.codebook.weight)
    torch.testing.assert_close(book.weight.grad, apart.codebook.weight.grad)
