"""What timm knows of its weights, printed as JSON: `python -m longtail.stage_one.networks.timm_weights NAME`.

Planning asks in a process of its own: timm imports torch, which takes seconds.
"""

import json
import sys

COMPUTES = False  # what is found becomes settings


def known(architecture: str) -> dict[str, object] | None:
    """What `longtail.settings.known_weights.KnownWeights` has of an architecture's weights; None: unknown."""
    import timm

    found = timm.models.get_pretrained_cfg(architecture)
    if found is None or found.num_classes is None:
        return None
    place = f"https://huggingface.co/{found.hf_hub_id}" if found.hf_hub_id else found.url or "not stated"
    return {
        "source": f"timm's {architecture}, {place}",
        "licence": found.license or "not stated",
        "size": found.input_size[-1],
        "center": found.crop_pct,
        "interpolation": "bicubic" if found.interpolation == "bicubic" else "bilinear",
        "mean": list(found.mean),
        "std": list(found.std),
    }


if __name__ == "__main__":
    print(json.dumps(known(sys.argv[1])))
