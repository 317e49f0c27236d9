#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch takes for the works of gpu-bench, on the same GPU.

The first line out is "READY ..." or why there is nothing. Then every line in is a work, as
gpu_rows.c asks it ("experts_up HIDDEN INTER ROWS...", "rmsnorm ROWS COLS", "add N"), and every line
out "SECONDS NAME" for each peer, between tabs; empty if PyTorch has none, or fails at it. Inputs
are random; the L2 cache is filled with something else before each run; medians.

torch.compile() is what writes Triton kernels here.
"""

import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError as e:
    print(f"{e}: pip install torch", flush=True)
    sys.exit(4)

RUNS = 21
BF16 = torch.bfloat16
PEERS = {}


def peer(*works):
    """Makes the function a peer for works of these names: (name, what to run) pairs."""

    def add(make):
        for work in works:
            PEERS[work] = make
        return make

    return add


def rand(*shape, dtype=torch.float32):
    return (torch.rand(*shape, device="cuda", dtype=torch.float32) * 2 - 1).to(dtype)


def median_time(run, flush):
    times = []
    for i in range(-3, RUNS):
        flush.sum()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i >= 0:
            times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def grouped_mm():
    return getattr(F, "grouped_mm", None) or torch._grouped_mm


@peer("experts_up", "experts_down", "experts_da", "experts_dx", "experts_dw")
def experts(work, hidden, inter, *groups):
    mm, n, rows = grouped_mm(), len(groups), sum(groups)
    offs = torch.tensor(groups, device="cuda").cumsum(0).to(torch.int32)
    wide, narrow = rand(rows, hidden, dtype=BF16), rand(rows, inter, dtype=BF16)
    if work == "experts_dw":
        # in bf16, where ours is fp32
        yield "torch grouped_mm (bf16 out)", lambda: mm(narrow.t(), wide, offs=offs)
        return
    gate = rand(n, inter, hidden, dtype=BF16)
    if work == "experts_up":
        up = rand(n, inter, hidden, dtype=BF16)
        gate_t, up_t = gate.transpose(-2, -1), up.transpose(-2, -1)
        yield "torch grouped_mm", lambda: F.silu(mm(wide, gate_t, offs=offs)) * mm(
            wide, up_t, offs=offs
        )
    elif work == "experts_down":
        down = rand(n, hidden, inter, dtype=BF16).transpose(-2, -1)
        yield "torch grouped_mm", lambda: mm(narrow, down, offs=offs)
    elif work == "experts_da":
        down = rand(n, hidden, inter, dtype=BF16)
        # without SwiGLU's derivative
        yield "torch grouped_mm (product alone)", lambda: mm(wide, down, offs=offs)
    else:
        up = rand(n, inter, hidden, dtype=BF16)
        other = rand(rows, inter, dtype=BF16)
        yield "torch grouped_mm", lambda: mm(narrow, gate, offs=offs) + mm(other, up, offs=offs)


@peer("add", "to_bf16", "from_bf16", "swiglu")
def elementwise(work, n):
    x, y = rand(n), rand(n)
    half = x.to(BF16)
    run = {
        "add": lambda: y.add_(x),
        "to_bf16": lambda: x.to(BF16),
        "from_bf16": lambda: half.to(torch.float32),
    }
    if work in run:
        yield "torch", run[work]
    else:
        swiglu = torch.compile(lambda g, u: F.silu(g) * u)
        yield "torch.compile (Triton)", lambda: swiglu(x, y)


@peer("adamw")
def adamw(_, n):
    p = torch.nn.Parameter(rand(n))
    p.grad = rand(n)
    opt = torch.optim.AdamW([p], lr=1e-4, fused=True)
    # without the snapshot, which is an eighth of the bytes
    yield "torch AdamW fused", opt.step


@peer("rmsnorm")
def rmsnorm(_, rows, cols):
    x, w = rand(rows, cols), rand(cols)
    norm = torch.compile(lambda x, w: F.rms_norm(x, (cols,), w, 1e-6))
    yield "torch.compile (Triton)", lambda: norm(x, w)


@peer("gather", "embed")
def gather(work, rows, cols):
    x = rand(129280 if work == "embed" else rows // 8, cols)
    idx = torch.randint(x.shape[0], (rows,), device="cuda")
    yield "torch index_select", lambda: x.index_select(0, idx)


@peer("combine")
def combine(_, tokens, k, cols):
    x, w = rand(tokens * k, cols), rand(tokens, k)
    slot = torch.randperm(tokens * k, device="cuda").view(tokens, k)
    run = torch.compile(lambda x, w, slot: (x[slot] * w[..., None]).sum(1))
    yield "torch.compile (Triton)", lambda: run(x, w, slot)


@peer("attn_heads")
def attention(_, heads, t, dqk, dv):
    # in bf16, where ours has fp32 in memory
    q, k = (rand(1, heads, t, dqk, dtype=BF16) for _ in range(2))
    v = rand(1, heads, t, dv, dtype=BF16)
    sdpa = F.scaled_dot_product_attention
    yield "torch SDPA (bf16)", lambda: sdpa(q, k, v, is_causal=True)


@peer("xent")
def xent(_, rows, vocab):
    logit = rand(rows, vocab)
    target = torch.randint(vocab, (rows,), device="cuda")

    def both(logit, target):
        grad = torch.softmax(logit, -1)
        loss = torch.logsumexp(logit, -1) - logit.gather(-1, target[:, None])[:, 0]
        return loss, grad.scatter_add(-1, target[:, None], grad.new_full((rows, 1), -1.0))

    run = torch.compile(both)
    yield "torch.compile (Triton)", lambda: run(logit, target)


def answer(line, flush):
    work, *sizes = line.split()
    found = []
    for name, run in PEERS[work](work, *map(int, sizes)) if work in PEERS else ():
        found.append(f"{median_time(run, flush):.9f} {name}")
    return "\t".join(found)


def main():
    if not torch.cuda.is_available():
        print("torch sees no GPU", flush=True)
        return 4
    flush = torch.zeros(64 << 20, device="cuda")
    print(f"READY torch {torch.__version__} for CUDA {torch.version.cuda}", flush=True)
    for line in sys.stdin:
        try:
            said = answer(line, flush)
        except Exception as e:  # a peer that cannot do this size is no peer for it
            print(f"gpu_peers.py: {line.strip()}: {e}", file=sys.stderr)
            said = ""
        print(said, flush=True)
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
