/* SPDX-License-Identifier: Apache-2.0 */
/* bf16.h - one bf16: the upper half of a float. */
#ifndef PST_BF16_H
#define PST_BF16_H

#include <stdint.h>
#include <string.h>

static inline float pst_bf16_to_f32(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

/* Nearest, ties to even; a NaN stays one, made quiet, whatever its payload. */
static inline uint16_t pst_bf16_from_f32(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#endif /* PST_BF16_H */
