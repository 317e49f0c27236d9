#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kernels/cuda/nvcc.sh: what is wrong with a CUDA kernel ends the build, with its name.
. selftests/lib/ktap.sh

nvcc=${NVCC-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}

compile()
{
	rm -f "$tmp/k.fatbin" "$tmp/k.fatbin.d"
	printf '%s\n' "$1" >"$tmp/k.cu"
	kernels/cuda/nvcc.sh "$nvcc" "$tmp/k.cu" "$tmp/k.fatbin"
}

leaves_nothing()
{
	find "$tmp" -name 'k.fatbin*'
}

good='extern "C" __global__ void good(float *x) { x[threadIdx.x] = 1; }'
# an array that is indexed by what only the launch knows lies on the stack
stack='extern "C" __global__ void on_stack(float *x, int n)
{
	float a[64];
	for (int i = 0; i < 64; i++)
		a[(i * n) & 63] = x[i];
	x[threadIdx.x] = a[threadIdx.x & 63];
}'
# 1024 threads leave 64 registers to each
spill='extern "C" __global__ void __launch_bounds__(1024) spilling(float *x)
{
	float a[128];
#pragma unroll
	for (int i = 0; i < 128; i++)
		a[i] = x[i * 1024 + threadIdx.x];
	__syncthreads();
#pragma unroll
	for (int i = 0; i < 128; i++)
		x[i * 1024 + threadIdx.x] = a[127 - i] + a[i];
}'

# What ptxas says of a wgmma that waits, from a stand-in for nvcc.
cat >"$tmp/nvcc" <<'END'
#!/bin/sh
echo "ptxas info    : Compiling entry function 'waiting' for 'sm_90a'"
echo "ptxas warning : (C7511) Potential Performance Loss: wgmma.mma_async instructions are" \
	"serialized due to insufficient register resources"
END
chmod +x "$tmp/nvcc"
check "refuses wgmma that wait for each other" refused "waiting for sm_90a" \
	kernels/cuda/nvcc.sh "$tmp/nvcc" "$tmp/k.cu" "$tmp/k.fatbin"

if [ -n "$nvcc" ]; then
	check "compiles what is right" compile "$good"
	check "says what to compile again for" grep -q k.cu "$tmp/k.fatbin.d"
	check "refuses a stack frame, by the kernel's name" \
		refused "on_stack for sm_80" compile "$stack"
	check "leaves nothing of it" none leaves_nothing
	check "refuses spills" refused "spilling for sm_80" compile "$spill"
	check "refuses a warning" refused "never referenced" compile "$good
__global__ void warned() { int unused; }"
	check "refuses a source without a kernel" \
		refused "named no kernel" compile "typedef int number;"
	check "says what is no CUDA" refused "error" compile "no CUDA"
else
	skip "the build of kernels" "no nvcc" "make NVCC=/usr/local/cuda/bin/nvcc"
fi
finish
