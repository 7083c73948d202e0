/* pairs.c - the order of the pairs of symbols (section 6). */
#include "blob.h"

void bsx_rank_pairs(const uint8_t *classes, uint32_t n, uint8_t *first, uint8_t *second) {
    uint32_t place[2 * BSX_MAX_CLASS + 2] = {0}; /* where the pairs of each sum of classes start: a counting sort */
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t b = 0; b < n; b++) place[classes[a] + classes[b] + 1]++;
    }
    for (unsigned sum = 1; sum < 2 * BSX_MAX_CLASS + 2; sum++) place[sum] += place[sum - 1];
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t b = 0; b < n; b++) {
            const uint32_t rank = place[classes[a] + classes[b]]++;
            first[rank] = (uint8_t)a;
            second[rank] = (uint8_t)b;
        }
    }
}
