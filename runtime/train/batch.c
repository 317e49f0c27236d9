/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/train/trainer.h"

static uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15ull; /* splitmix64 */
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void pst_batch_draw(const struct pst_corpus *corpus, uint64_t seed, uint32_t step, uint32_t batch,
		    uint32_t seq, int32_t *tokens, int32_t *targets)
{
	uint64_t places = corpus->train - seq;

	for (uint32_t b = 0; b < batch; b++) {
		uint64_t r = mix(mix(seed) ^ ((uint64_t)step << 32 | b));
		const unsigned char *row = corpus->text + (size_t)((__uint128_t)r * places >> 64);

		for (uint32_t t = 0; t < seq; t++) {
			tokens[(size_t)b * seq + t] = row[t];
			targets[(size_t)b * seq + t] = row[t + 1];
		}
	}
}
