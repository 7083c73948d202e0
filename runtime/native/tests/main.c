/* main.c - run all C tests. */
#include "check.h"

int checks_failed = 0;

int main(void) {
    test_crc32c();
    test_streams();
    test_kernels();
    test_heads();
    test_decode();
    test_encode();
    test_count();
    test_sha256();
    test_json();
    test_package();
    test_ort();
    test_product();
    test_sizes();
    if (checks_failed) fprintf(stderr, "%d checks failed\n", checks_failed);
    else puts("all C tests passed");
    return checks_failed != 0;
}
