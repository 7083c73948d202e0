/* element.h - write decoded weights of one size; they are copied as bits, whatever their type.
 * Included by decode.c once per size, with ELEMENT (an unsigned type of that size) and NAME(x). */

/* Copy the values of `count` symbols. */
static void NAME(gather)(uint8_t *out, const uint16_t *symbols, size_t count, const void *values) {
    const ELEMENT *value = values;
    for (size_t i = 0; i < count; i++) memcpy(out + i * sizeof(ELEMENT), &value[symbols[i]], sizeof(ELEMENT));
}

/* Write `weights` times the value of symbol 0, and over it, after each run, the value of the next symbol. The runs and
 * the coded weights together are at most `weights`. */
static void NAME(scatter)(uint8_t *out, size_t weights, const uint16_t *runs, const uint16_t *symbols, size_t coded,
                          const void *values) {
    const ELEMENT *value = values;
    const ELEMENT zero = value[0];
    for (size_t i = 0; i < weights; i++) memcpy(out + i * sizeof(ELEMENT), &zero, sizeof(ELEMENT));
    size_t i = 0;
    for (; i + 4 <= coded; i += 4) { /* four places at a time, so that little else is done than loads and stores */
        const size_t a = runs[i], b = a + runs[i + 1] + 1, c = b + runs[i + 2] + 1, d = c + runs[i + 3] + 1;
        memcpy(out + a * sizeof(ELEMENT), &value[symbols[i]], sizeof(ELEMENT));
        memcpy(out + b * sizeof(ELEMENT), &value[symbols[i + 1]], sizeof(ELEMENT));
        memcpy(out + c * sizeof(ELEMENT), &value[symbols[i + 2]], sizeof(ELEMENT));
        memcpy(out + d * sizeof(ELEMENT), &value[symbols[i + 3]], sizeof(ELEMENT));
        out += (d + 1) * sizeof(ELEMENT);
    }
    for (; i < coded; i++) {
        out += runs[i] * sizeof(ELEMENT);
        memcpy(out, &value[symbols[i]], sizeof(ELEMENT));
        out += sizeof(ELEMENT);
    }
}
