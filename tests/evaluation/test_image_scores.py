"""Scores of sets of images against closed formulas, scipy and hand-made sets."""

import hashlib
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_plugin import UserError
from gan_plugin.evaluation.image_scores import (
    BuiltinExtractor,
    Features,
    InceptionExtractor,
    as_bytes,
    build_extractor,
    cached_features,
    extract,
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbourhoods,
    score,
)

FIRST_WEIGHT = -0.0445952


def gaussian(count, width=16, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return (torch.randn(count, width, generator=generator) @ mixing) * scale + shift


def test_fid_is_scipys_and_zero_for_equal_sets_and_grows_with_noise():
    a, b = gaussian(400, seed=1), gaussian(300, seed=2, scale=1.3, shift=0.5)
    means, covariances = zip(*((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (a, b)), strict=True)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    # of two Gaussians that differ in the mean alone, the distance is the squared difference
    assert frechet_distance(a, a + 2.0) == pytest.approx(16 * 4.0, rel=1e-6)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(5))
    distances = [frechet_distance(a, a + level * noise) for level in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert distances == sorted(distances) and len(set(distances)) == 5


def test_inception_score_of_uniform_of_one_hot_and_of_a_case_by_hand():
    assert inception_score(torch.zeros(500, 7))[0] == pytest.approx(1.0)
    sure = torch.eye(4).repeat(200, 1) * 1000
    assert inception_score(sure)[0] == pytest.approx(4.0, rel=0.01)
    # p is (3/4, 1/4) or (1/4, 3/4) in equal shares: KL to (1/2, 1/2) is the same for both
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]]).repeat(40, 1)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert inception_score(logits)[0] == pytest.approx(math.exp(divergence))


def test_kernel_distance_is_the_unbiased_estimate_by_loops():
    a, b = gaussian(30, width=4, seed=1), gaussian(30, width=4, seed=2, shift=1.0)

    def mean(x, y, same):
        terms = [
            float((x[i] @ y[j] / 4 + 1) ** 3) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)
        ]
        return sum(terms) / len(terms)

    expected = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    value, spread = kernel_distance(a, b)
    assert value == pytest.approx(expected, rel=1e-4) and spread == pytest.approx(0, abs=1e-6)


def test_neighbourhoods_of_sets_that_are_equal_apart_and_collapsed():
    a = gaussian(200, seed=1)
    same = neighbourhoods(a, a)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    apart = neighbourhoods(a, a + 1000)
    assert set(apart.values()) == {0.0}
    # all fakes are one real sample: precise, but they cover next to nothing
    collapsed = neighbourhoods(a, a[:1].repeat(200, 1))
    assert collapsed["precision"] == 1.0 and collapsed["recall"] < 0.05 and collapsed["coverage"] < 0.2
    # density by a loop: over all real samples, whether the fake one is within the distance to the fifth neighbour
    points, fakes = gaussian(25, width=3, seed=3), gaussian(10, width=3, seed=4)
    radii = [sorted(math.dist(p, q) for q in points.tolist())[5] for p in points.tolist()]
    hits = [[math.dist(p, f) <= r for f in fakes.tolist()] for p, r in zip(points.tolist(), radii, strict=True)]
    found = neighbourhoods(points, fakes)
    assert found["density"] == pytest.approx(sum(map(sum, hits)) / 50)
    assert found["coverage"] == pytest.approx(sum(map(any, hits)) / 25)


def images(count, noise=0.0, seed=0):
    """Squares of random colours on green, as bytes."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.tensor([0.2, 1.0, 0.2]).view(1, 3, 1, 1).repeat(count, 1, 32, 32) * 2 - 1
    pictures[:, :, 8:24, 4:28] = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    return as_bytes(pictures + noise * torch.randn(pictures.shape, generator=generator))


def test_the_builtin_network_is_the_same_everywhere_and_orders_noise(caplog):
    extractor = build_extractor()
    real, again = (extract(extractor, [images(150)]) for _ in range(2))
    assert torch.equal(real.values, again.values) and real.values.shape == (150, 128)
    # one number of its weights, written down: the stream of numpy's legacy generator is frozen
    assert float(BuiltinExtractor()._kernels[1][0, 0, 0, 0]) == pytest.approx(FIRST_WEIGHT, abs=1e-6)
    scores = [score(real, extract(extractor, [images(150, noise, seed=1)])) for noise in (0.0, 0.2, 0.5)]
    assert [s.FID for s in scores] == sorted(s.FID for s in scores)
    assert "150 real and 150 generated" in caplog.text and "2048" in caplog.text
    assert "not Inception" in scores[0].extractor and scores[0].results()["builtin"]["fake_count"] == 150


def test_features_of_two_networks_or_too_few_are_refused():
    a = Features(gaussian(20), gaussian(20), "one", "one")
    with pytest.raises(UserError, match="described by one and .* by two"):
        score(a, Features(gaussian(20), gaussian(20), "two", "two"))
    with pytest.raises(UserError, match="5 generated"):
        score(a, Features(gaussian(5), gaussian(5), "one", "one"))
    with pytest.raises(UserError, match="no images"):
        extract(BuiltinExtractor(), [])


def test_inception_takes_weights_by_path_and_refuses_all_else(tmp_path):
    for name, content in (("none.pth", None), ("text.pth", b"hello"), ("other.pth", {"fc.weight": torch.ones(2)})):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            torch.save(content, path)
        with pytest.raises(UserError, match=f"{name}.*built-in features"):
            InceptionExtractor(path)

    # the harder case: the format of before PyTorch 1.6
    state = _random_inception_state()
    torch.save(state, tmp_path / "inception.pth", _use_new_zipfile_serialization=False)
    digest = hashlib.sha256((tmp_path / "inception.pth").read_bytes()).hexdigest()
    extractor = build_extractor(tmp_path / "inception.pth")
    features = extract(extractor, [images(2)])
    assert features.values.shape == (2, 2048) and features.logits.shape == (2, 1008)
    assert "inception.pth" in features.extractor and digest[:16] in features.extractor
    assert features.label == "inception"
    torch.testing.assert_close(features.logits, features.values @ state["fc.weight"].T, rtol=1e-4, atol=1e-4)


def _random_inception_state():
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *args, **kwargs):
            return None

    original, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *a, **k: {}
    try:
        return Unloaded("inception-v3-compat", ["2048"]).state_dict()
    finally:
        module.load_state_dict_from_url = original


def test_the_reference_is_computed_once_for_each_network_and_key(tmp_path, caplog):
    extractor, calls = BuiltinExtractor(), []

    def batches():
        calls.append(1)
        yield images(12)

    first = cached_features(tmp_path / "cache", "cars-64", extractor, batches())
    second = cached_features(tmp_path / "cache", "cars-64", extractor, batches())
    assert torch.equal(first.values, second.values) and len(calls) == 1
    cached_features(tmp_path / "cache", "cars-32", extractor, batches())
    assert len(calls) == 2
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"cut")
    third = cached_features(tmp_path / "cache", "cars-64", extractor, batches())
    assert torch.equal(first.values, third.values) and "computed again" in caplog.text
