/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object that exports no kernel. */
extern __attribute__((visibility("default"))) const int something_else;
const int something_else = 1;
