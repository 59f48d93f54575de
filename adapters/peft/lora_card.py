"""The README.md of an exported LoRA: where it comes from, how close it is, how PEFT, vLLM and llama.cpp load it."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from adapters.algebra import ApproximationReport
from adapters.saved.files import replace_file
from adapters.saved.folder import read_config
from adapters.saved.model_card import CARD_NAME

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's option --max-lora-rank (vllm/config/lora.py)."""


def write_lora_card(directory: Path, report: ApproximationReport) -> None:
    """Write the card of the LoRA in ``directory``; ``report`` is that of its truncation."""
    config = read_config(directory)
    rank, base = config["r"], config.get("base_model_name_or_path") or "BASE"
    largest = next((value for value in VLLM_RANKS if value >= rank), None)
    data = ModelCardData(library_name="peft", tags=["lora"], base_model=None if base == "BASE" else base)
    vllm = f"vllm serve {base} --enable-lora --max-lora-rank {largest} --lora-modules NAME=FOLDER"
    card = ModelCard(
        "\n".join(
            [
                f"---\n{data.to_yaml()}\n---\n",
                "# LoRA of a tensor-train adapter\n",
                f"Rank {rank} at {len(report.linears)} linears, scaling included (alpha = r), exported by",
                f"`python -m adapters.peft.to_lora`; relative error of the deltas {report.relative_error:.1e}.\n",
                "```sh",
                vllm if largest else f"# vLLM serves ranks up to {VLLM_RANKS[-1]}: export with --rank",
                "python convert_lora_to_gguf.py FOLDER --base BASE    # llama.cpp",
                "```\n",
                "```python",
                "from peft import PeftModel\n",
                "model = PeftModel.from_pretrained(base_model, folder)",
                "```\n",
            ]
        )
    )
    replace_file(directory / CARD_NAME, card.save)
