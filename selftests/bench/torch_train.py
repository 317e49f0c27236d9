#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training speed of a DeepSeek-V3-shaped model in eager PyTorch on this machine's CPU, fp32.

Tries the ways in which transformers and torch can do it, takes the fastest, measures that, and
prints one line of JSON. Exit status 4: torch or transformers is missing.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import torch
    import transformers
except ImportError as e:
    print(f"torch_train.py: {e}: pip install torch transformers safetensors", file=sys.stderr)
    sys.exit(4)

ATTENTION = ("sdpa", "eager")
EXPERTS = ("eager", "batched_mm", "grouped_mm")
OPTIMIZER = ("fused", "foreach", "loop")
TRIAL_STEPS = 5
HOPELESS = 10  # settings whose first two steps are this many times slower get no more


def build(config_path, attention, experts):
    config = transformers.DeepseekV3Config.from_pretrained(config_path)
    config._attn_implementation = attention
    config._experts_implementation = experts
    torch.manual_seed(1)
    return transformers.DeepseekV3ForCausalLM(config).float().train()


def adamw(model, how):
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = {"foreach": how == "foreach", "fused": how == "fused"}
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, **kind)


class Trainer:
    def __init__(self, args, attention, experts, optimizer):
        self.model = build(args.config, attention, experts)
        self.opt = adamw(self.model, optimizer)
        self.foreach = optimizer != "loop"
        self.rng = torch.Generator().manual_seed(2)
        self.shape = (args.batch, args.seq + 1)

    def step(self):
        """Seconds of one step: forward, backward, clipping, AdamW. Drawing tokens is not timed."""
        vocab = self.model.config.vocab_size
        tokens = torch.randint(vocab, self.shape, generator=self.rng)
        start = time.perf_counter()
        self.opt.zero_grad(set_to_none=True)
        logits = self.model(tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=self.foreach)
        self.opt.step()
        loss.item()
        return time.perf_counter() - start


def attempt(args, settings, function):
    """What @function returns; None where torch cannot do it on a CPU in fp32."""
    try:
        return function()
    except (RuntimeError, NotImplementedError, KeyError, ValueError) as e:
        if args.verbose:
            print(f"{' '.join(settings)}: {e}", file=sys.stderr)
        return None


def fastest(args, candidates):
    """The settings with the best step; they take turns, so that a busy moment hits all alike."""
    trainers, times = {}, {}
    for settings in candidates:
        trainer = attempt(args, settings, lambda: Trainer(args, *settings))
        seconds = trainer and attempt(args, settings, trainer.step)
        if seconds is not None:
            trainers[settings], times[settings] = trainer, seconds
    if not times:
        sys.exit("torch_train.py: no settings work with this torch and transformers")
    limit = float("inf")
    for _ in range(TRIAL_STEPS):
        for settings, trainer in trainers.items():
            if times[settings] < limit:
                times[settings] = min(times[settings], trainer.step())
        limit = HOPELESS * min(times.values())
    if args.verbose:
        for settings, seconds in times.items():
            print(f"{' '.join(settings)}: {seconds * 1e3:.1f} ms", file=sys.stderr)
    return min(times, key=times.get)


def measure(args):
    attention, experts, _ = fastest(args, itertools.product(args.attention, args.experts, ("foreach",)))
    settings = fastest(args, [(attention, experts, how) for how in args.adamw])
    trainer = Trainer(args, *settings)
    for _ in range(args.warmup):
        trainer.step()
    return settings, [trainer.step() for _ in range(args.steps)]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("config", help="a config.json of model_type deepseek_v3")
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--seq", type=int, default=256)
    ap.add_argument("--steps", type=int, default=20)
    ap.add_argument("--warmup", type=int, default=2)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--attention", nargs="+", choices=ATTENTION, default=ATTENTION, help="to try")
    ap.add_argument("--experts", nargs="+", choices=EXPERTS, default=EXPERTS, help="to try")
    ap.add_argument("--adamw", nargs="+", choices=OPTIMIZER, default=OPTIMIZER, help="to try")
    ap.add_argument("--verbose", action="store_true", help="time of each trial, on stderr")
    args = ap.parse_args()

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)

    (attention, experts, optimizer), times = measure(args)
    seconds = statistics.median(times)
    result = {
        "tokens_per_second": round(args.batch * args.seq / seconds, 1),
        "step_ms": round(seconds * 1e3, 3),
        "step_ms_best": round(min(times) * 1e3, 3),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "settings": {
            "attention": attention,
            "experts": experts,
            "adamw": optimizer,
            "batch": args.batch,
            "seq": args.seq,
            "steps": args.steps,
            "threads": args.threads,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
