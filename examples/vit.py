"""Train ViT to classify which quadrant of a noisy image is bright.

    python -m examples.vit

The adapter is a tensor ring, whose first and last core are also connected by a bond, beside every linear but the new
classification head, which is fully trained and saved with it.
"""

import tempfile
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

from adapters.peft import TensorTrainConfig
from examples._loop import Batch, held_out, measure, report, train, trainable_parameters

SIZE, PATCH = 16, 8
SETTING = {
    "format": "tensor_ring",
    "rank": 3,
    "target_modules": "all-linear",
    "exclude_modules": ["classifier"],
    "modules_to_save": ["classifier"],
}


def base() -> ViTForImageClassification:
    """Make a small ViT with random weights, the same at every call."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    image = {"image_size": SIZE, "patch_size": PATCH, "num_channels": 1, "num_labels": 4}
    return ViTForImageClassification(ViTConfig(initializer_range=0.1, **size, **image))


def images(generator: torch.Generator) -> Batch:
    """Draw 64 images of noise; in one quadrant, one standard deviation of the noise is added."""
    quadrant = torch.randint(4, (64,), generator=generator)
    noise = torch.randn(64, 1, SIZE, SIZE, generator=generator)  # (64, channel, rows, columns)
    bright = torch.eye(4)[quadrant].view(64, 1, 2, 2)
    bright = bright.repeat_interleave(SIZE // 2, 2).repeat_interleave(SIZE // 2, 3)
    return {"pixel_values": 0.1 * (noise + bright), "labels": quadrant}


def main() -> dict[str, Any]:
    model = get_peft_model(base(), TensorTrainConfig(**SETTING))
    trained, test = trainable_parameters(model), held_out(images)
    before = measure(model, test)
    train(model, images, steps=120)
    after = measure(model, test)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        reloaded = measure(PeftModel.from_pretrained(base(), folder), test)
    merged = measure(model.merge_and_unload(), test)
    return report(trained, base(), before, after, reloaded, merged)


if __name__ == "__main__":
    main()
