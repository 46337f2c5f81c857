/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What elfutils' configure would find with glibc 2.28 and clang, as far as
 * libelf asks; or musl.
 */
#define _GNU_SOURCE 1
#define HAVE_DECL_MEMPCPY 1
#define HAVE_DECL_MEMRCHR 1
#define HAVE_DECL_POWEROF2 1
#define HAVE_DECL_REALLOCARRAY 1
#define HAVE_ERR_H 1
#if __has_include(<error.h>) /* glibc's */
#define HAVE_DECL_RAWMEMCHR 1
#define HAVE_ERROR_H 1
#endif
#define HAVE_FALLTHROUGH 1
#define HAVE_MREMAP 1
#define HAVE_VISIBILITY 1
#include <eu-config.h>
