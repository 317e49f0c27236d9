/* SPDX-License-Identifier: Apache-2.0 */
/* images.h - files with the images of selftests/control/images/, as this build made them. */
#ifndef TEST_IMAGES_H
#define TEST_IMAGES_H

#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/mman.h>

/* They lie beside the test programs. */
static inline int open_image(const char *name)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 64);
	int fd;

	ASSERT_GT(n, 0);
	path[n] = '\0';
	/* selftests/AREA/NAME */
	*strrchr(path, '/') = '\0';
	*strrchr(path, '/') = '\0';
	snprintf(path + strlen(path), 64, "/control/images/%s.so", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		test_say(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
	ASSERT_GE(fd, 0);
	return fd;
}

static inline int bytes_file(const void *bytes, size_t len)
{
	int fd = memfd_create("bytes", MFD_CLOEXEC);

	ASSERT_GE(fd, 0);
	ASSERT_EQ((ssize_t)len, write(fd, bytes, len));
	return fd;
}

/* The first @bytes of an image; @image is closed. */
static inline int cut_image(int image, size_t bytes)
{
	char *text = malloc(bytes);
	int fd;

	ASSERT_EQ((ssize_t)bytes, pread(image, text, bytes, 0));
	close(image);
	fd = bytes_file(text, bytes);
	free(text);
	return fd;
}

#endif /* TEST_IMAGES_H */
