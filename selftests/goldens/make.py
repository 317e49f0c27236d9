#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the golden files beside this script with transformers' DeepseekV3ForCausalLM.

Each folder gets a config.json and a model.safetensors as a user would download them, and what
PyTorch computed from them. See README.md for what the files hold.
"""

import argparse
import json
import math
import os
import pathlib
import sys

try:
    import torch
    import transformers
    from safetensors.torch import save_file
except ImportError as e:
    sys.exit(f"make.py: {e}: pip install torch transformers safetensors")

HERE = pathlib.Path(__file__).resolve().parent
MARGIN = 1e-3  # between a chosen expert or group and the next one; scores are in (0, 1)
LIMIT = 1_000_000  # bytes of all data together

BASE = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "torch_dtype": "float32",
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "intermediate_size": 64,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rope_interleave": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "num_nextn_predict_layers": 0,
    "initializer_range": 0.02,
}

SMALL = BASE | {
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "moe_intermediate_size": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
}

YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}

# With theta 100 the ramp runs over dimensions 1 to 4, so that both betas matter.
YARN_MSCALE = YARN | {"beta_fast": 2, "beta_slow": 0.3, "mscale_all_dim": 0.5}

# name: (changes to SMALL, sequences, tokens in each)
VARIANTS = {
    "no-q-lora": ({"q_lora_rank": None}, 2, 24),
    "no-dense-no-groups": ({"first_k_dense_replace": 0, "n_group": 1, "topk_group": 1}, 2, 24),
    "no-norm-topk": ({"norm_topk_prob": False}, 2, 24),
    "two-shared": ({"n_shared_experts": 2}, 2, 24),
    "tied": ({"tie_word_embeddings": True}, 2, 24),
    "half-rope": ({"rope_interleave": False, "qk_rope_head_dim": 8}, 2, 24),
    "yarn": ({"rope_scaling": YARN, "qk_rope_head_dim": 8}, 1, 160),
    "yarn-mscale": ({"rope_scaling": YARN_MSCALE, "rope_theta": 100.0, "qk_rope_head_dim": 8}, 1, 96),
    "odd-sizes": (
        {
            "vocab_size": 29,
            "hidden_size": 40,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "intermediate_size": 12,
            "moe_intermediate_size": 3,
            "n_routed_experts": 6,
            "n_group": 3,
            "q_lora_rank": 14,
            "kv_lora_rank": 24,
            "qk_nope_head_dim": 12,
            "qk_rope_head_dim": 4,
            "v_head_dim": 20,
        },
        3,
        17,
    ),
}

ADAMW = {
    "steps": 20,
    "lr": 1e-3,
    "beta1": 0.9,
    "beta2": 0.95,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
}


def random_weights(model, rng):
    """Weights that make every part matter: activations near 1, the gate's scores spread."""
    for name, p in model.named_parameters():
        if p.ndim == 1:
            p.data = 1 + 0.2 * (torch.rand(p.shape, generator=rng) - 0.5)
            continue
        std = 1 / math.sqrt(p.shape[-1])
        if name == "model.embed_tokens.weight":
            std = 0.5 if not model.config.tie_word_embeddings else 0.1
        elif name == "lm_head.weight":
            std = 0.1
        elif name.endswith("mlp.gate.weight"):
            std *= 0.8
        p.data = std * torch.randn(p.shape, generator=rng)
    for name, b in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            b.copy_(0.1 * (torch.rand(b.shape, generator=rng) - 0.5))


def unfuse(name, t):
    """(name on the Hugging Face hub, tensor) pairs of a tensor of transformers' model."""
    prefix, _, last = name.rpartition(".")
    if last == "gate_up_proj":
        for e in range(t.shape[0]):
            gate, up = t[e].chunk(2)
            yield f"{prefix}.{e}.gate_proj.weight", gate
            yield f"{prefix}.{e}.up_proj.weight", up
    elif last == "down_proj":
        for e in range(t.shape[0]):
            yield f"{prefix}.{e}.down_proj.weight", t[e]
    else:
        yield name, t


def save(tensors, path):
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    path.chmod(0o644)


def hub(named):
    return {n: t.detach().clone() for name, p in named for n, t in unfuse(name, p)}


def hub_weights(model):
    biases = [(n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    return hub(list(model.named_parameters()) + biases)


def hub_grads(model):
    return hub((n, torch.zeros_like(p) if p.grad is None else p.grad) for n, p in model.named_parameters())


def gates(model):
    return [m for m in model.modules() if type(m).__name__ == "DeepseekV3TopkRouter"]


def gate_margin(gate, hidden):
    """The least distance between what @gate chose and what it did not; -1: a biased score <= 0."""
    x = hidden.reshape(-1, hidden.shape[-1]).double()
    scores = torch.sigmoid(x @ gate.weight.double().T) + gate.e_score_correction_bias.double()
    if scores.min() <= 0:
        return -1.0
    groups = scores.view(len(scores), gate.num_group, -1)
    by_group = groups.topk(2, dim=-1)[0].sum(-1)
    margin = math.inf
    if gate.topk_group < gate.num_group:
        top = by_group.topk(gate.topk_group + 1)[0]
        margin = (top[:, -2] - top[:, -1]).min().item()
    kept = torch.zeros_like(by_group).scatter_(1, by_group.topk(gate.topk_group)[1], 1)
    left = groups.masked_fill(kept.unsqueeze(-1) == 0, -math.inf).flatten(1)
    top = left.topk(gate.top_k + 1)[0]
    return min(margin, (top[:, -2] - top[:, -1]).min().item())


def clear(model, tokens):
    """Whether rounding cannot change which experts the tokens go to."""
    margins = []
    hooks = [
        g.register_forward_pre_hook(lambda g, args: margins.append(gate_margin(g, args[0])))
        for g in gates(model)
    ]
    with torch.no_grad():
        model(tokens, use_cache=False)
    for h in hooks:
        h.remove()
    assert margins
    return min(margins) > MARGIN


def draw(model, rng, batch, length, alphabet=None):
    """[batch, length + 1] tokens whose first @length are routed with a clear margin."""
    for _ in range(5000):
        tokens = torch.randint(alphabet or model.config.vocab_size, (batch, length + 1), generator=rng)
        if clear(model, tokens[:, :-1]):
            return tokens
    raise AssertionError("no tokens with a clear margin: change the seed")


def cross_entropy(logits, targets):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def forward_backward(model, tokens, targets):
    model.zero_grad(set_to_none=True)
    logits = model(tokens, use_cache=False).logits
    loss = cross_entropy(logits, targets)
    loss.backward()
    return logits.detach(), loss.detach()


def load(folder):
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        local_files_only=True,
    )
    assert model.config._attn_implementation == "eager"
    assert model.config._experts_implementation == "eager"
    return model.train()


def checkpoint(folder, config, rng):
    """Writes config.json and model.safetensors, and returns the model that is read from them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config.from_pretrained(folder))
    random_weights(model, rng)
    written = hub_weights(model)
    save(written, folder / "model.safetensors")
    model = load(folder)
    read = hub_weights(model)
    assert read.keys() == written.keys() and all(torch.equal(read[n], written[n]) for n in read)
    return model


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-300)).item()


def report(name, folder, tokens, targets, logits, loss, grads):
    """How far fp32 is from fp64 (norms and softmax stay fp32): what a comparison can hope for."""
    double = load(folder).double()
    logits64, loss64 = forward_backward(double, tokens, targets)
    grads64 = hub_grads(double)
    worst = max(relative(grads[n], grads64[n]) for n in grads if grads64[n].norm() > 0)
    vocab = logits.shape[-1]
    print(
        f"{name}: loss {loss:.6f} (ln {vocab} = {math.log(vocab):.3f}), from fp64: loss "
        f"{abs(loss.double() - loss64):.1e}, logits {relative(logits, logits64):.1e}, "
        f"worst gradient {worst:.1e}"
    )
    assert abs(loss - math.log(vocab)) < 1


def make_nano(folder, rng):
    model = checkpoint(folder, BASE, rng)
    drawn = draw(model, rng, 2, 32)
    tokens, targets = drawn[:, :-1].clone(), drawn[:, 1:].clone()
    logits, loss = forward_backward(model, tokens, targets)
    grads = hub_grads(model)
    expect = {"tokens": tokens, "targets": targets, "logits": logits, "loss": loss}
    save(expect | {f"grad.{n}": g for n, g in grads.items()}, folder / "expect.safetensors")
    report(folder.name, folder, tokens, targets, logits, loss, grads)


def make_adamw(folder, rng):
    """Twenty steps on tokens of a small alphabet, so that the loss has something to learn."""
    model = load(folder)
    params = list(model.parameters())
    opt = torch.optim.AdamW(
        [
            {"params": [p for p in params if p.ndim >= 2], "weight_decay": ADAMW["weight_decay"]},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=ADAMW["lr"],
        betas=(ADAMW["beta1"], ADAMW["beta2"]),
        eps=ADAMW["eps"],
        foreach=False,
    )
    batches, losses, norms = [], [], []
    for _ in range(ADAMW["steps"]):
        drawn = draw(model, rng, 2, 32, alphabet=16)
        _, loss = forward_backward(model, drawn[:, :-1], drawn[:, 1:])
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        norms.append(torch.nn.utils.clip_grad_norm_(params, ADAMW["clip_norm"]))
        opt.step()
        batches.append(drawn.to(torch.uint8))
        losses.append(loss)
    losses, norms = torch.stack(losses), torch.stack(norms)
    final = hub_weights(model)
    names = sorted(final)
    some = [
        "model.norm.weight",
        "model.layers.0.self_attn.kv_b_proj.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.2.mlp.experts.3.down_proj.weight",
    ]
    out = {"batches": torch.stack(batches), "losses": losses, "norms": norms}
    out["final_norms"] = torch.stack([final[n].norm() for n in names])
    save(out | {f"final.{n}": final[n] for n in some}, folder / "adamw.safetensors")
    text = ADAMW | {
        "losses": [float(x) for x in losses],
        "norms": [float(x) for x in norms],
        "final_norms": names,
    }
    (folder / "adamw.json").write_text(json.dumps(text, indent=1) + "\n")
    print(f"adamw: loss {losses[0]:.6f} to {losses[-1]:.6f}, norms {norms.min():.3f} to {norms.max():.3f}")


def make_variant(folder, changes, batch, length, rng):
    model = checkpoint(folder, SMALL | changes, rng)
    drawn = draw(model, rng, batch, length)
    tokens, targets = drawn[:, :-1].clone(), drawn[:, 1:].clone()
    logits, loss = forward_backward(model, tokens, targets)
    grads = hub_grads(model)
    names = sorted(grads)
    positions = torch.tensor([0, 1, length // 3, 2 * length // 3, length - 1])
    expect = {
        "tokens": tokens,
        "targets": targets,
        "positions": positions,
        "logits": logits[:, positions],
        "loss": loss,
        "grad_norms": torch.stack([grads[n].norm() for n in names]),
    }
    save(expect, folder / "expect.safetensors")
    (folder / "expect.json").write_text(json.dumps({"grad_norms": names}, indent=0) + "\n")
    report(folder.name, folder, tokens, targets, logits, loss, grads)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", type=pathlib.Path, default=HERE, help="where to write (default: here)")
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")

    def rng(i):
        return torch.Generator().manual_seed(args.seed * 1000 + i)

    make_nano(args.out / "nano", rng(0))
    make_adamw(args.out / "nano", rng(1))
    for i, (name, (changes, batch, length)) in enumerate(VARIANTS.items()):
        make_variant(args.out / name, changes, batch, length, rng(2 + i))
    data = [f for f in args.out.glob("*/*") if f.suffix in (".json", ".safetensors")]
    total = sum(f.stat().st_size for f in data)
    print(f"{len(data)} files, {total} bytes")
    assert total < LIMIT


if __name__ == "__main__":
    main()
