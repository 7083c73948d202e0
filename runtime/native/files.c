/* files.c - files and pages of memory, by mmap where there is one and by the C library alone where not. */
#if defined(__unix__) || defined(__APPLE__)
#define BSX_POSIX 1
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE 1  /* madvise, MAP_ANONYMOUS */
#define _DARWIN_C_SOURCE 1 /* the same */
#define _FILE_OFFSET_BITS 64
#endif

#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t empty[1] = {0}; /* the content of an empty file */

/* The reason why reading or mapping failed, an errno. */
static const char *refuse(bsx_file *file, int reason) {
    file->no_memory = reason == ENOMEM;
    return strerror(reason);
}

#if defined(BSX_POSIX)
#include <dirent.h>
#include <sys/mman.h>
#include <unistd.h>

/* Without stat and fstat, which would bind the library to the glibc that it was made with, if that is 2.33 or later. */
bool bsx_is_directory(const char *path) {
    DIR *directory = opendir(path);
    return directory != NULL && closedir(directory) == 0;
}

static const char *measure(bsx_file *file) {
    if (read(fileno(file->stream), &(char){0}, 0) != 0) return strerror(errno); /* a directory */
    const off_t size = fseeko(file->stream, 0, SEEK_END) == 0 ? ftello(file->stream) : -1;
    if (size < 0) return strerror(errno);
    file->size = (uint64_t)size;
    rewind(file->stream);
    return NULL;
}

const char *bsx_file_map(bsx_file *file) {
    if (file->size > SIZE_MAX) return refuse(file, ENOMEM);
    file->data = empty;
    if (file->size == 0) return NULL; /* a mapping cannot be empty */
    void *data = mmap(NULL, (size_t)file->size, PROT_READ, MAP_SHARED, fileno(file->stream), 0);
    if (data == MAP_FAILED) return refuse(file, errno);
    file->data = data;
    file->mapped = true;
    return NULL;
}

void bsx_file_release(const bsx_file *file, uint64_t offset, uint64_t bytes) {
    if (!file->mapped) return;
    const uint64_t start = offset - offset % (uint64_t)sysconf(_SC_PAGESIZE);
    madvise((void *)(uintptr_t)(file->data + start), (size_t)(offset + bytes - start), MADV_DONTNEED);
}

static void unmap(bsx_file *file) { munmap((void *)(uintptr_t)file->data, (size_t)file->size); }

void *bsx_allocate_pages(size_t bytes) {
    void *pages = mmap(NULL, bytes + (bytes == 0), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
    madvise(pages, bytes, MADV_HUGEPAGE); /* page faults would cost more than decoding */
#endif
    return pages;
}

void bsx_free_pages(void *pages, size_t bytes) {
    if (pages) munmap(pages, bytes + (bytes == 0));
}

#else

/* A directory cannot be told from nothing; opening its files will say more. */
bool bsx_is_directory(const char *path) {
    (void)path;
    return true;
}

static const char *measure(bsx_file *file) {
#if defined(_WIN32)
    const long long size = _fseeki64(file->stream, 0, SEEK_END) == 0 ? _ftelli64(file->stream) : -1;
#else
    const long size = fseek(file->stream, 0, SEEK_END) == 0 ? ftell(file->stream) : -1;
#endif
    if (size < 0) return strerror(errno);
    file->size = (uint64_t)size;
    rewind(file->stream);
    return NULL;
}

const char *bsx_file_map(bsx_file *file) { return bsx_file_read(file); }

void bsx_file_release(const bsx_file *file, uint64_t offset, uint64_t bytes) {
    (void)file, (void)offset, (void)bytes;
}

static void unmap(bsx_file *file) { (void)file; }

void *bsx_allocate_pages(size_t bytes) { return calloc(bytes + (bytes == 0), 1); }

void bsx_free_pages(void *pages, size_t bytes) {
    (void)bytes;
    free(pages);
}
#endif

const char *bsx_file_open(bsx_file *file, const char *path) {
    memset(file, 0, sizeof *file);
    file->stream = fopen(path, "rb");
    return file->stream ? measure(file) : strerror(errno);
}

const char *bsx_file_read(bsx_file *file) {
    if (file->size > SIZE_MAX) return refuse(file, ENOMEM);
    file->data = empty;
    if (file->size == 0) return NULL;
    uint8_t *data = malloc((size_t)file->size);
    if (data == NULL) return refuse(file, ENOMEM);
    file->data = data;
    if (fread(data, 1, (size_t)file->size, file->stream) == file->size) return NULL;
    return ferror(file->stream) ? strerror(errno) : "It became shorter while it was read";
}

void bsx_file_close(bsx_file *file) {
    if (file->mapped) unmap(file);
    else if (file->data != empty) free((void *)(uintptr_t)file->data);
    if (file->stream) fclose(file->stream);
    memset(file, 0, sizeof *file);
}
