import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from longtail.stage_two import ncm

from .test_afg import mixture, silent

torch.set_num_threads(1)


@pytest.mark.parametrize("features", ["clean", "views"])
@pytest.mark.parametrize("normalisation", ["cl2n", "l2n", "none"])
def test_ncm_is_the_class_with_the_nearest_mean(features, normalisation):
    """scikit-learn's nearest centroid on features that are centred and normalised here, in float64."""
    data, tested, _ = mixture()
    settings = ncm.Settings(features=features, normalisation=normalisation)
    fitted = ncm.fit(data, settings, 0, silent)
    train = data.clean if features == "clean" else data.views.flatten(0, 1)
    labels = data.labels if features == "clean" else data.labels.repeat(3)
    x, y = train.double().numpy(), tested.double().numpy()
    if normalisation == "cl2n":
        x, y = x - x.mean(0), y - x.mean(0)
    if normalisation != "none":
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    reference = NearestCentroid().fit(x, labels.numpy())
    assert (fitted.logits(tested).argmax(1).numpy() == reference.predict(y)).mean() > 0.998  # ties in float32
    logits = fitted.logits(tested).double().numpy()
    distances = ((y[:, None] - reference.centroids_) ** 2).sum(2)
    np.testing.assert_allclose(logits, (y**2).sum(1, keepdims=True) - distances, atol=1e-4)


def test_class_means_are_exact_and_a_class_without_a_feature_is_named():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 5.0]])
    assert ncm.class_means(features, torch.tensor([0, 0, 1]), 2).tolist() == [[2.0, 3.0], [5.0, 5.0]]
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have no training image"):
        ncm.class_means(features, torch.tensor([0, 0, 2]), 4)
