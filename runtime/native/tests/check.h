/* check.h - one line per failed expectation, and a count of them. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

extern int checks_failed;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                    \
            checks_failed++;                                                                                           \
        }                                                                                                              \
    } while (0)

/* As CHECK, for tables: says which row. */
#define CHECK_ROW(condition, row)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: failed: %s, for %s\n", __FILE__, __LINE__, #condition, (row));                     \
            checks_failed++;                                                                                           \
        }                                                                                                              \
    } while (0)

void test_crc32c(void);
void test_streams(void);
void test_kernels(void);
void test_heads(void);
void test_decode(void);
void test_encode(void);
void test_count(void);
void test_sha256(void);
void test_json(void);
void test_package(void);
void test_ort(void);
void test_product(void);
void test_sizes(void);

#endif
