"""Which training images are held out, and from which data loaders they can be."""

import pytest
import torch
from helpers import make_lamp_ae
from torch.utils.data import DataLoader, IterableDataset

from anomalib_lamp.callbacks import HeldOutImages


@pytest.mark.parametrize(("count", "held_out"), [(7, 0), (8, 4), (40, 5), (2000, 100)])
def test_an_eighth_but_at_least_four_and_at_most_a_hundred(count, held_out):
    learnt, chosen = HeldOutImages(fraction=0.125, at_least=4, at_most=100, seed=3).split(count)
    assert len(chosen) == held_out
    assert sorted(learnt + chosen) == list(range(count))


def test_the_seed_chooses():
    chosen = [HeldOutImages(0.5, 1, 100, seed).split(50)[1] for seed in (1, 1, 2, None, 0)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[3] == chosen[4]


def test_none_at_most_means_none():
    assert HeldOutImages(0.5, 1, at_most=0).split(50) == (list(range(50)), [])


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.rand(3, 64, 64)


def test_a_dataset_without_length_is_refused_with_the_remedy(make_engine):
    engine = make_engine(limit_val_batches=0)
    with pytest.raises(TypeError, match=r"got one over Endless, which has no length.*map-style dataset"):
        engine.fit(make_lamp_ae(), train_dataloaders=DataLoader(Endless(), batch_size=2))


def test_several_loaders_are_refused_with_the_remedy(make_engine, parts):
    parts.prepare_data()
    parts.setup()
    loaders = [parts.train_dataloader(), parts.train_dataloader()]
    with pytest.raises(TypeError, match="a single training data loader"):
        make_engine(limit_val_batches=0).fit(make_lamp_ae(), train_dataloaders=loaders)
