"""Generation beside a plain batched loop of transformers (`generate` with its cache): the same weights and prompts.

    python benchmarks/language/generation.py [--width 64 --layers 2 --heads 4] [--rounds 5]

Both sample 32 answers of up to 64 tokens to prompts of 16 at a temperature of 1, on one thread, in turns: in each round
each once, the ratio is of tokens per second in a round. Written to rows/generation.json. Before that, both answer
greedily, and the share of equal answers is told: a Llama of transformers has the same layers.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Text
from transformers import LlamaConfig, LlamaForCausalLM

from shoal.rl import LanguagePolicy
from shoal.rl.language.decoding import Decoding
from shoal.rl.language.sampling import Sampling
from shoal.rl.language.tokens import ANSWER, BEGIN, END, PAD
from shoal.rl.models.spec import ModelSpec

ANSWERS, PROMPT, TOKENS = 32, 16, 64
ROW = Path(__file__).parent / "rows" / "generation.json"


def both(width: int, layers: int, heads: int) -> tuple[LanguagePolicy, Any]:
    """A policy of ours and the Llama with its weights."""
    space, network = Text(8), {"tokenizer": "bytes", "width": width, "layers": layers, "heads": heads, "context": 256}
    policy = LanguagePolicy(ModelSpec("language_model", space, space, network), seed=1)
    policy.model.flat.mul_(2)
    own = policy.model
    config = LlamaConfig(
        vocab_size=own.tokens.size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=own.blocks[0].down.in_features, max_position_embeddings=256, tie_word_embeddings=True,
        rms_norm_eps=torch.finfo(torch.float32).eps, rope_theta=10_000.0,
        bos_token_id=BEGIN, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        llama.model.embed_tokens.weight.copy_(own.embedding.weight)
        llama.model.norm.weight.copy_(own.norm.weight)
        for ours, theirs in zip(own.blocks, llama.model.layers, strict=True):
            theirs.input_layernorm.weight.copy_(ours.attention_norm.weight)
            theirs.post_attention_layernorm.weight.copy_(ours.feed_norm.weight)
            for name, part in zip("qkv", ours.qkv.weight.chunk(3), strict=True):
                getattr(theirs.self_attn, f"{name}_proj").weight.copy_(part)
            theirs.self_attn.o_proj.weight.copy_(ours.out.weight)
            gate, up = ours.gate_up.weight.chunk(2)
            theirs.mlp.gate_proj.weight.copy_(gate)
            theirs.mlp.up_proj.weight.copy_(up)
            theirs.mlp.down_proj.weight.copy_(ours.down.weight)
    return policy, llama


def of_transformers(llama: Any, prompts: list[str], seed: int, sample: bool = True) -> list[list[int]]:
    """Tokens of each answer, END left out."""
    ids = torch.tensor([[BEGIN, *(4 + byte for byte in prompt.encode()), ANSWER] for prompt in prompts])
    torch.manual_seed(seed)
    with torch.inference_mode():
        found = llama.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=sample,
            suppress_tokens=[PAD, BEGIN, ANSWER], **({"top_k": 0} if sample else {}),
        )  # fmt: skip
    said = found[:, ids.shape[1] :].tolist()
    return [row[: row.index(END)] if END in row else row for row in said]


def by_groups(policy: LanguagePolicy, prompts: list[str], seed: int) -> list[list[int]]:
    """As generators of a training sample: all rows together, from the first token to the last."""
    noise = torch.from_numpy(np.random.default_rng(seed).random((len(prompts), TOKENS)))
    with torch.inference_mode():
        decoding = Decoding(policy.model, len(prompts), Sampling())
        decoding.read([policy.model.tokens.encode(prompt) for prompt in prompts])
        return decoding.answer(noise, np.ones(len(prompts), np.bool_)).ids


def continuously(policy: LanguagePolicy, prompts: list[str], seed: int, **options: Any) -> list[list[int]]:
    """As `generate` and `serve` sample: 16 side by side, others follow."""
    said: list[list[int]] = [[] for _ in prompts]
    for index, each in policy.stream(prompts, max_new_tokens=TOKENS, seed=seed, **options):
        if each.token != END:
            said[index].append(each.token)
    return said


def main() -> None:
    """Compare, and write the row."""
    parser = argparse.ArgumentParser()
    for name, value in {"width": 64, "layers": 2, "heads": 4, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy, llama = both(given.width, given.layers, given.heads)
    prompts = [f"prompt number {number:02d}" for number in range(ANSWERS)]
    assert all(len(prompt) == PROMPT for prompt in prompts)
    pairs = zip(
        continuously(policy, prompts, 0, temperature=0.0), of_transformers(llama, prompts, 0, False), strict=True
    )
    equal = sum(ours == theirs for ours, theirs in pairs) / ANSWERS
    rates: dict[str, list[float]] = {"transformers": [], "groups": [], "continuous": []}
    for seed in range(given.rounds):
        for name, sample in (("transformers", of_transformers), ("groups", by_groups), ("continuous", continuously)):
            began = time.process_time()
            said = sample(llama if name == "transformers" else policy, prompts, seed)
            rates[name].append(sum(map(len, said)) / (time.process_time() - began))
    ratios = {
        name: statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates["transformers"], strict=True))
        for name in ("groups", "continuous")
    }
    row = {
        "row": "generation", **vars(given), "greedy_answers_equal": equal, "answers": ANSWERS, "tokens": TOKENS,
        "tokens_per_cpu_second": {name: round(statistics.median(each)) for name, each in rates.items()},
        "times_transformers": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }  # fmt: skip
    print(row)
    known = json.loads(ROW.read_text()) if ROW.exists() else []
    ROW.write_text(json.dumps([*(old for old in known if old["width"] != given.width), row]) + "\n")


if __name__ == "__main__":
    main()
