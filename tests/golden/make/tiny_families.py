#!/usr/bin/env python3
"""Makes tests/golden/tiny/NAME for families with no training there: a small random model saved by Hugging
Face's transformers, and what its implementation makes of it in float64.

    pip install torch transformers==5.24.0 && python tiny_families.py

expected.json: `prompt_ids`, `logits_last` of its last row, `logprob_of_next` (t: the log-probability of token
t + 1 behind tokens 0 to t), and `greedy`: `prompt` and the `ids` that follow it.
"""
import json
import math
import pathlib

import torch
import transformers as hf

HERE = pathlib.Path(__file__).parent.parent / "tiny"
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=96, max_position_embeddings=128, pad_token_id=0,
             bos_token_id=1, eos_token_id=2)


def models():
    def of(family, **more):
        config = getattr(hf, family + "Config")(**(SIZES | more))
        return getattr(hf, family + "ForCausalLM")(config)

    yield "mixtral_window", of("Mixtral", num_hidden_layers=2, num_local_experts=5, num_experts_per_tok=2, sliding_window=11)
    yield "smollm3_skips_rope", of("SmolLM3")
    yield "granite_multipliers", of("Granite", embedding_multiplier=12.0, residual_multiplier=0.22,
                                    attention_multiplier=0.0625, logits_scaling=8.0, rms_norm_eps=1e-3)
    yield "gemma_first", of("Gemma", head_dim=16, num_key_value_heads=1)
    yield "gemma2_softcaps", of("Gemma2", head_dim=16, query_pre_attn_scalar=16, sliding_window=9,
                                attn_logit_softcapping=3.0, final_logit_softcapping=2.5)
    yield "olmo2_wide_norms", of("Olmo2")
    yield "olmo3_yarn_window", of("Olmo3", sliding_window=9, rope_parameters={
        "full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 500000.0,
                           "original_max_position_embeddings": 32},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0}})
    yield "exaone4_window", of("Exaone4", sliding_window=9, sliding_window_pattern=4)
    yield "seed_oss_bias", of("SeedOss", head_dim=16, attention_out_bias=True)


def randomize(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() == 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[-1]))


def expected(model, seed):
    model = model.double().eval()
    random = torch.Generator().manual_seed(seed)

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].double()

    prompt = torch.randint(3, SIZES["vocab_size"], (40,), generator=random).tolist()
    rows = logits(prompt)
    logprobs = torch.log_softmax(rows, -1)
    beginning = prompt[:12]
    ids = list(beginning)
    for _ in range(24):
        ids.append(int(logits(ids)[-1].argmax()))
    return {"dtype": "float64 truth from float32 weights", "prompt_ids": prompt,
            "logits_last": rows[-1].tolist(),
            "logprob_of_next": [float(logprobs[t, prompt[t + 1]]) for t in range(len(prompt) - 1)],
            "greedy": {"prompt": beginning, "ids": ids[len(beginning):]}}


def main():
    for seed, (name, model) in enumerate(models()):
        randomize(model, seed)
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        reference = type(model).from_pretrained(folder, attn_implementation="eager",
                                                experts_implementation="eager")
        (folder / "expected.json").write_text(json.dumps(expected(reference, seed)) + "\n")


if __name__ == "__main__":
    main()
