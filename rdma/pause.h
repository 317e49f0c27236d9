/* SPDX-License-Identifier: Apache-2.0 */
/* pause.h - between two looks at a line: who looks all the time is in the way of who writes it. */
#ifndef PST_RDMA_PAUSE_H
#define PST_RDMA_PAUSE_H

static inline void pst_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif /* PST_RDMA_PAUSE_H */
