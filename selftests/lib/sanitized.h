/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanitized.h - is this built with a sanitizer? SANITIZED is 0 or 1, SANITIZED_THREADS defined for
 * that of threads. They are slow, have the address space to themselves, and take mlock(2).
 */
#ifndef TEST_SANITIZED_H
#define TEST_SANITIZED_H

#if defined(__SANITIZE_THREAD__)
#define SANITIZED_THREADS 1
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZED_THREADS 1
#elif __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED_THREADS
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif /* TEST_SANITIZED_H */
