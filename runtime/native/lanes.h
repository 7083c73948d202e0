/* lanes.h - a loop over the codewords of several streams, compiled for each kind of code and processor.
 *
 * Included with READ_ROUNDS(lane *, lanes, rounds, bsx_shape, const source *), which decodes `rounds` times some codewords
 * of each lane, `lanes` being BSX_LANES or 1, and returns the lane that has none, else `lanes`. */

ALWAYS_INLINE unsigned read_in_shape(lane *l, unsigned lanes, uint64_t rounds, bsx_shape k, const source *s) {
    if (s->table->code.family == BSX_EXP_GOLOMB) {
        k.family = BSX_EXP_GOLOMB;
        if (lanes == BSX_LANES) return READ_ROUNDS(l, BSX_LANES, rounds, k, s);
        return READ_ROUNDS(l, 1, rounds, k, s);
    }
    k.family = BSX_GOLOMB_RICE;
    if (lanes == BSX_LANES) return READ_ROUNDS(l, BSX_LANES, rounds, k, s);
    return READ_ROUNDS(l, 1, rounds, k, s);
}

#define READ_LANES(NAME, TARGET)                                                                                       \
    TARGET static unsigned NAME(lane *l, unsigned lanes, uint64_t rounds, const source *s) {                           \
        const bsx_shape plain = {0, false}, mapped = {0, true};                                                        \
        if (s->table->mapped) return read_in_shape(l, lanes, rounds, mapped, s);                                       \
        return read_in_shape(l, lanes, rounds, plain, s);                                                              \
    }
#if defined(BSX_X86)
READ_LANES(read_lanes_bmi2, TARGET_BMI2)

/* x86 processors without these instructions are old and few: one loop for all kinds of code, which is a fifth slower. */
static unsigned read_lanes_portable(lane *l, unsigned lanes, uint64_t rounds, const source *s) {
    const bsx_shape shape = {s->table->code.family, s->table->mapped};
    return READ_ROUNDS(l, lanes, rounds, shape, s);
}
#else
READ_LANES(read_lanes_portable, )
#endif

static unsigned read_lanes(lane *l, unsigned lanes, uint64_t rounds, const source *s) {
#if defined(BSX_X86)
    if (s->table->bmi2) return read_lanes_bmi2(l, lanes, rounds, s);
#endif
    return read_lanes_portable(l, lanes, rounds, s);
}
