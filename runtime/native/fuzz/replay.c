/* replay.c - run a fuzz target on files, each also with single bits changed: for compilers without libFuzzer. */
#include <stdio.h>

#include "target.h"

#define CHANGES 200 /* of each file */
#define MOST (1U << 24)

static int run_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        return 1;
    }
    uint8_t *data = exactly(MOST);
    const size_t size = fread(data, 1, MOST, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    for (size_t i = 0; i < size; i += 1 + size / CHANGES) {
        data[i] ^= (uint8_t)(1U << i % 8);
        LLVMFuzzerTestOneInput(data, size);
        data[i] ^= (uint8_t)(1U << i % 8);
    }
    free(data);
    return 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) failed |= run_file(argv[i]);
    printf("%d files, each also with bits changed\n", argc - 1);
    return failed;
}
